"""The class of each picture, by the trained model: ``python -m src.predict PICTURE...``. Not a stage."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from src.pictures.read import read_picture
from src.pipeline.paths import MODEL_FILE
from src.pipeline.project import ROOT
from src.resnet.inference import InputFormat, predict_probabilities
from src.resnet.machine import set_up_machine
from src.resnet.model_file import load_model
from src.resnet.network import trim

SHOWN = 3  # classes, the most probable first
CHUNK = 100  # pictures that are in memory together


def main() -> None:
    parser = argparse.ArgumentParser(prog="predict.py", description="Say which class each picture is of.")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="a file, or a folder of pictures")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument("--model", type=Path, default=ROOT / MODEL_FILE, help="another model's file")
    parser.add_argument("--tta", type=int, choices=(1, 5, 9), default=1, help="shifted copies to average over")
    arguments = parser.parse_args()

    machine = set_up_machine("cpu", "fp32", threads=0)
    model, metadata = load_model(arguments.model)
    form, class_names = InputFormat.of_model(metadata), metadata["class_names"]
    model = trim(model, form.image_size).to(memory_format=torch.channels_last)

    files = [file for path in arguments.pictures for file in (sorted(path.rglob("*.*")) if path.is_dir() else [path])]
    for start in range(0, len(files), CHUNK):
        chunk = files[start : start + CHUNK]
        images = torch.from_numpy(np.stack([read_picture(file, form.image_size) for file in chunk]))
        probabilities = predict_probabilities(model, images, form, machine, arguments.tta)
        for file, row in zip(chunk, probabilities, strict=True):
            best = {class_names[i]: row[i].item() for i in row.argsort(descending=True)[:SHOWN]}
            if arguments.json:
                print(json.dumps({"file": str(file), "probabilities": best}, ensure_ascii=False))
            else:
                print(f"{'  '.join(f'{name} {value:.1%}' for name, value in best.items())}  {file}")
