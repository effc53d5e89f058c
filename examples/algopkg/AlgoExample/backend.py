import socket
from pathlib import Path


class algo_backend:
    def __init__(self, model_path):
        self.info_msg = f"Result from {socket.gethostname()}"
        self.threshold = 0.5
        # "folder,file,file…", or empty when the model needs no file
        folder, *files = model_path.split(",")
        self._model_init([Path(folder) / name.strip() for name in files])

    def reconfigure(self, config):
        self.threshold = config["threshold"]

    def _model_init(self, model_path_lst):
        self.weights = [float(path.read_text()) for path in model_path_lst] or [1.0]

    def _model_inference(self, param_dict):
        scores = [score * sum(self.weights) for score in param_dict["scores"]]
        return {"labels": [int(score >= self.threshold) for score in scores]}
