"""Ask an ONNX model on what stands for a machine without torch: ``python -I without_torch.py MODEL IMAGES.npy``.

Prints the logits and the class names in the model's metadata, as one JSON object.
"""

import json
import sys


class NotInstalled:
    """Have Python find neither torch, nor torchvision, nor this project."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in ("torch", "torchvision", "src"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled())

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402

try:
    import torch  # noqa: F401
except ModuleNotFoundError:
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": np.load(sys.argv[2])[:, None]})
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["mnist-resnet"])
    print(json.dumps({"logits": logits.tolist(), "class_names": metadata["class_names"]}))
else:
    sys.exit("torch was found")
