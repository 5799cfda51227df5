# SPDX-License-Identifier: Apache-2.0
"""The Python adapter as the kit's reader: ``python python_reader.py VOLUME KEY``."""

import hashlib
import json
import sys
from collections.abc import Mapping

from keyferry import ContractError, FileAdapter, KeyWithdrawnError, NotPublishedError


def answer(keys: FileAdapter) -> Mapping[str, object]:
    """Look once."""
    try:
        ring = keys.keyring
    except NotPublishedError:
        return {"result": "not-published"}
    except KeyWithdrawnError:
        return {"result": "withdrawn"}
    except ContractError:
        return {"result": "broken"}
    versions = [
        {"id": key.id, "state": key.state, "sha256": hashlib.sha256(key.bytes).hexdigest()} for key in ring
    ]
    return {"result": "ok", "versions": versions}


if __name__ == "__main__":
    adapter = FileAdapter(sys.argv[1], sys.argv[2], check_interval=0)
    for _ in sys.stdin:
        print(json.dumps(answer(adapter)), flush=True)
