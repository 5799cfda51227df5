# SPDX-License-Identifier: Apache-2.0
"""As much of a kubelet as a keyferry pod needs, on podman: runs a rendered pod as a node would.

    with Pod(documents) as pod:
        eventually(lambda: pod.sync() == "Running")
        pod.update("Secret", "fedha-master", {"master": key})

Rules:

- ``sync`` does what is possible now and waits for nothing, as a kubelet does: init containers one after the
  other, a native sidecar's startup probe before whatever comes next, and the sidecars' end after the last
  container's.
- Volumes are what the kubelet makes: a tmpfs of the host with setgid and the fsGroup, and projections that
  change by one rename of ``..data``.
- Security contexts, memory limits and HTTP probes are honoured; what it does not know is an error.

It restarts nothing, and knows neither liveness nor services.
"""

import base64
import ctypes
import http.client
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.kubernetes.charts import Document, one, pods
from tests.kubernetes.podman import Container, inspect, memory, podman

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_CLONE_NEWNET = 0x40000000


class Pod:
    """The one pod that ``documents`` make (or the one called ``name``), on this machine."""

    def __init__(
        self,
        documents: Iterable[Document],
        *,
        name: str = "",
        images: Mapping[str, str],
        token: str = "",
        network: Literal["none", "host"] = "none",
    ) -> None:
        """Keep what to run; ``images`` translates rendered images into local ones."""
        self._documents = {(d["kind"], d["metadata"]["name"]): d for d in documents}
        [self._spec] = [spec for found, spec in pods(self._documents.values()) if name in found]
        self._images, self._token, self._network = images, token, network
        self._name = f"keyferry-pod-{os.urandom(4).hex()}"
        self._cleanup = ExitStack()
        self._volumes: dict[str, Path] = {}
        self._projections: dict[str, _Projection] = {}
        self._ready: set[str] = set()
        self.containers: dict[str, Container] = {}

    def __enter__(self) -> Self:
        home = Path(tempfile.mkdtemp(prefix="keyferry-pod-"))
        home.chmod(0o755)
        self._cleanup.callback(shutil.rmtree, home, ignore_errors=True)
        try:
            for volume in self._spec.get("volumes", []):
                self._volumes[volume["name"]] = self._make_volume(home / volume["name"], volume)
            podman(
                "pod", "create", "--name", self._name, "--network", self._network, "--share", "net,ipc,uts"
            )
            self._cleanup.callback(podman, "pod", "rm", "--force", "--time", "0", self._name, check=False)
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for name, container in self.containers.items():
                error.add_note(f"--- {name}\n{container.logs()}")
        self._cleanup.close()

    # What a kubelet does

    def sync(self) -> Phase:
        """Do whatever can be done now, and return the pod's phase."""
        for spec in self._spec.get("initContainers", []):
            container = self._running(spec)
            if spec.get("restartPolicy") == "Always":
                if not self._started(spec, container):
                    return "Pending"
            elif container.running:
                return "Pending"
            elif container.exit_code != 0:
                return "Failed"
        apps = [self._running(spec) for spec in self._spec["containers"]]
        if any(container.running for container in apps):
            return "Running"
        self._stop_sidecars()
        return "Succeeded" if all(container.exit_code == 0 for container in apps) else "Failed"

    def stop(self) -> None:
        """End the pod: its containers at once, then its native sidecars, the last one first."""
        grace = self._spec.get("terminationGracePeriodSeconds", 30)
        for spec in self._spec["containers"]:
            if spec["name"] in self.containers:
                self.containers[spec["name"]].stop(grace)
        self._stop_sidecars()

    def update(self, kind: Literal["ConfigMap", "Secret"], name: str, data: Mapping[str, str]) -> None:
        """Change an object, and have it arrive in every projection."""
        document = {"kind": kind, "metadata": {"name": name}}
        document["data" if kind == "ConfigMap" else "stringData"] = dict(data)
        self._documents[kind, name] = document
        for projection in self._projections.values():
            projection.write()

    def ready(self, container: str) -> bool:
        """Return whether the readiness probe of ``container`` succeeds."""
        [spec] = [c for c in self._all() if c["name"] == container]
        return self._probe(self.containers[container], spec["readinessProbe"])

    def volume(self, name: str) -> Path:
        """Return where a volume is on this machine."""
        return self._volumes[name]

    def _all(self) -> list[Document]:
        return [*self._spec.get("initContainers", []), *self._spec["containers"]]

    def _running(self, spec: Document) -> Container:
        name = spec["name"]
        if name not in self.containers:
            full = f"{self._name}-{name}"
            podman("run", "--detach", "--pod", self._name, "--name", full, *self._arguments(spec))
            self.containers[name] = Container(full)
        return self.containers[name]

    def _started(self, spec: Document, container: Container) -> bool:
        if spec["name"] not in self._ready:
            if not self._probe(container, spec["startupProbe"]):
                return False
            self._ready.add(spec["name"])
        return True

    def _probe(self, container: Container, probe: Document) -> bool:
        get = probe["httpGet"]
        process = inspect(container.name)["State"]["Pid"]
        if process == 0:
            return False
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_get, process, get["port"], get["path"]).result()

    def _stop_sidecars(self) -> None:
        for spec in reversed(self._spec.get("initContainers", [])):
            if spec.get("restartPolicy") == "Always" and self.containers[spec["name"]].running:
                self.containers[spec["name"]].stop(self._spec.get("terminationGracePeriodSeconds", 30))

    # Containers

    def _arguments(self, spec: Document) -> list[str]:
        return [
            *self._options(spec),
            self._images[spec["image"]],
            *spec.get("command", [])[1:],
            *spec.get("args", []),
        ]

    def _options(self, spec: Document) -> Iterator[str]:
        context = {**self._spec.get("securityContext", {}), **spec.get("securityContext", {})}
        yield "--pull=never"
        if context.get("readOnlyRootFilesystem"):
            yield from ("--read-only", "--read-only-tmpfs=false")
        if "runAsUser" in context:
            yield f"--user={context['runAsUser']}:{context.get('runAsGroup', 0)}"
        if "fsGroup" in context:
            yield f"--group-add={context['fsGroup']}"
        for capability in context.get("capabilities", {}).get("drop", []):
            yield f"--cap-drop={capability}"
        if context.get("allowPrivilegeEscalation") is False:
            yield "--security-opt=no-new-privileges"
        if limit := spec.get("resources", {}).get("limits", {}).get("memory"):
            yield from (f"--memory={_bytes(limit)}", f"--memory-swap={_bytes(limit)}")
        for variable in spec.get("env", []):
            yield f"--env={variable['name']}={variable['value']}"
        for mount in spec.get("volumeMounts", []):
            mode = "ro" if mount.get("readOnly") else "rw"
            yield f"--volume={self._volumes[mount['name']]}:{mount['mountPath']}:{mode}"
        if command := spec.get("command"):
            yield f"--entrypoint={command[0]}"

    # Volumes

    def _make_volume(self, path: Path, volume: Document) -> Path:
        group = self._spec.get("securityContext", {}).get("fsGroup")
        match volume:
            case {"emptyDir": {"medium": "Memory", "sizeLimit": limit}}:
                return self._cleanup.enter_context(memory(path, group=group, size=_bytes(limit)))
            case {"emptyDir": {}}:
                path.mkdir()
                path.chmod(0o777)
                return path
            case {"projected": source}:
                sources = source["sources"]
            case {"configMap": source}:
                sources = [{"configMap": source}]
            case _:
                raise NotImplementedError(volume)
        path.mkdir()
        mode = source.get("defaultMode", 0o644)
        projection = _Projection(path, mode, group, lambda: self._contents(sources))
        projection.write()
        self._projections[volume["name"]] = projection
        return path

    def _contents(self, sources: list[Document]) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for source in sources:
            match source:
                case {"configMap": wanted}:
                    data = {k: v.encode() for k, v in self._find("ConfigMap", wanted["name"])["data"].items()}
                case {"secret": wanted}:
                    secret = self._find("Secret", wanted["name"])
                    data = {k: base64.b64decode(v) for k, v in secret.get("data", {}).items()}
                    data |= {k: v.encode() for k, v in secret.get("stringData", {}).items()}
                case {"serviceAccountToken": wanted}:
                    files[wanted["path"]] = self._token.encode()
                    continue
                case _:
                    raise NotImplementedError(source)
            items = wanted.get("items") or [{"key": key, "path": key} for key in data]
            files |= {item["path"]: data[item["key"]] for item in items}
        return files

    def _find(self, kind: str, name: str) -> Document:
        return one(self._documents.values(), kind, name)


class _Projection:
    """Files that change all at once, as the kubelet's AtomicWriter has it: by one rename of a link."""

    def __init__(
        self, path: Path, mode: int, group: int | None, contents: Callable[[], dict[str, bytes]]
    ) -> None:
        self._path, self._mode, self._group, self._contents = path, mode, group, contents
        self._count = 0

    def write(self) -> None:
        self._count += 1
        directory = self._path / f"..{self._count}"
        directory.mkdir()
        for name, content in self._contents().items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(self._mode)
            if self._group is not None:
                os.chown(file, 0, self._group)
            top = name.split("/")[0]
            if not (self._path / top).is_symlink():
                (self._path / top).symlink_to(f"..data/{top}")
        link = self._path / "..data_tmp"
        link.symlink_to(directory.name)
        link.rename(self._path / "..data")


def _get(process: int, port: int, path: str) -> bool:
    """Return whether a GET from inside the network namespace of ``process`` gives 2xx or 3xx."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{process}/ns/net").open() as namespace:
        # Of this thread only, which ends afterwards. os.setns comes with Python 3.12.
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 400
    except OSError:
        return False
    finally:
        connection.close()


def _bytes(quantity: Any) -> int:
    found = re.fullmatch(r"(\d+)(Ki|Mi|Gi)", str(quantity))
    assert found is not None, quantity
    return int(found[1]) * _UNITS[found[2]]
