"""A list of models with the folders of the agent that follows it, and the troubles that move what the puller counts."""

import json
import threading

from support import Handler, wait_until


class Place:
    """Folders of one agent and one server, and the list of models."""

    def __init__(self, root):
        self.root = root
        self.sources, self.configs, self.models = (root / name for name in ["sources", "configs", "models"])
        for folder in (self.sources, self.configs, self.models):
            folder.mkdir()
        self._lists = 0

    def flags(self):
        return ["--enable-puller", f"--config-dir={self.configs}", f"--model-dir={self.models}", f"--model-source-dir={self.sources}"]

    def list(self, **numbers):
        """The models by name, each with its number or its URI, as a ConfigMap's volume shows a change."""
        self._lists += 1
        data = self.configs / f"..data_{self._lists}"
        data.mkdir()
        entries = [{"modelName": name, "modelSpec": self._spec(name, number)} for name, number in numbers.items()]
        (data / "models.json").write_text(json.dumps(entries))
        link = self.configs / "..data_tmp"
        link.symlink_to(data.name)
        link.rename(self.configs / "..data")
        file = self.configs / "models.json"
        if not file.is_symlink():
            file.symlink_to("..data/models.json")

    def _spec(self, name, number):
        if isinstance(number, str):
            return {"storageUri": number}
        source = self.sources / f"{name}-{number}"
        source.mkdir(exist_ok=True)
        settings = {"name": name, "implementation": "mlserver_repository.Number", "parameters": {"uri": "./number"}}
        (source / "model-settings.json").write_text(json.dumps(settings))
        (source / "number").write_text(str(number))
        return {"storageUri": f"file://{source}", "framework": "sklearn", "memory": "1Gi"}


class Repository(Handler):
    """A server that has whatever it is told, and a web server whose file stops half-way until `over` is set."""

    over = threading.Event()

    def do_POST(self):
        list(self.body())
        self.answer(200, b"[]", "application/json")

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"01234")
        self.wfile.flush()
        self.over.wait(self.timeout)


def troubles(place, port):
    """What is to be done to an agent that follows `place`: a model comes, one stops half-way, one and an entry can't."""

    def provoke(_, look):
        half = f"http://127.0.0.1:{port}/model.bin"
        place.list(**{"good": 1, "bad": "file:///nowhere", "half": half, "../up": half})
        key = ("kserve_agent_model_downloaded_bytes", ("model", "half"))
        wait_until(lambda: look().get(key) == 5, "half of a download")
        ready = ("kserve_agent_model_ready", ("model", "good"))
        wait_until(lambda: look().get(ready) == 1, "model")
        failed = ("kserve_agent_model_failures_total", ("model", "bad"))
        wait_until(lambda: look().get(failed, 0) >= 1, "failure")

    return provoke
