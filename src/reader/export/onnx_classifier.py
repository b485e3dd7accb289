"""The trained model in the form that other programs take, run by onnxruntime."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from src.pipeline.process import UserError, first_line
from src.resnet.inference import Answers, inference_batch_size
from src.resnet.model_file import METADATA_KEY

INPUT, LOGITS, SCORE = "images", "logits", "outlier_score"  # of the graph


class OnnxClassifier:
    """What `Classifier` is, from ``models/model.onnx``, on the CPU."""

    def __init__(self, model: Path | bytes) -> None:
        """Load a file, or its content. Raises `UserError` where it is missing, damaged, or not of this project."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what is wrong is said below
        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            metadata = json.loads(self._session.get_modelmeta().custom_metadata_map[METADATA_KEY])
            self.class_names: list[str] = metadata["class_names"]
            self._batch_size = inference_batch_size(metadata["image_size"])
        except Exception as error:  # onnxruntime raises many kinds for a wrong file
            name = "the exported model" if isinstance(model, bytes) else model
            raise UserError(f"{name} is missing or damaged: {first_line(error)}; run `dvc repro export`") from error

    def answers(self, images: torch.Tensor) -> Answers:
        """Answer images (N, 28, 28) uint8."""
        outputs = [
            self._session.run([LOGITS, SCORE], {INPUT: batch.unsqueeze(1).numpy()})
            for batch in images.split(self._batch_size)
        ]
        logits, scores = (
            np.concatenate([np.asarray(output) for output in column]) for column in zip(*outputs, strict=True)
        )
        return Answers(torch.from_numpy(logits), torch.from_numpy(scores))
