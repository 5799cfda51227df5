# SPDX-License-Identifier: Apache-2.0
"""As much of the API server as a MutatingAdmissionPolicy needs: evaluates it, and returns the mutated pod.

Rules:

- The expressions are evaluated by a real CEL implementation. It knows no types of Kubernetes, so typed
  objects are turned into maps first; that each is named after its field is checked, as the API server does.
- A JSON patch knows ``add`` only; an apply configuration merges the lists that Kubernetes merges, by their
  keys, and refuses every other list, since those are atomic.
- What it cannot tell is whether the fields exist: validate the mutated pod for that.
"""

import copy
import re
from typing import Any

import cel

Document = dict[str, Any]

_TYPE = re.compile(r"\bObject((?:\.\w+)*)\{")
_FIELD = re.compile(r"\b(\w+): ")
_TYPED_FIELD = re.compile(r"\b(\w+): \[?\s*Object(?:\.\w+)*\.(\w+)\{")
# Of core/v1: the lists that merge, and by what.
_MERGE_KEYS = {"containers": "name", "env": "name"}


def admit(policy: Document, pod: Document) -> Document:
    """Return ``pod`` as the API server would store it under ``policy``."""
    spec = policy["spec"]
    if not _selected(spec, pod) or not all(_evaluate(c["expression"], pod) for c in spec["matchConditions"]):
        return pod
    for mutation in spec["mutations"]:
        match mutation["patchType"]:
            case "JSONPatch":
                pod = _patch(pod, _evaluate(mutation["jsonPatch"]["expression"], pod))
            case "ApplyConfiguration":
                pod = _apply(pod, _evaluate(mutation["applyConfiguration"]["expression"], pod))
            case other:
                raise NotImplementedError(other)
    return pod


def _selected(spec: Document, pod: Document) -> bool:
    labels = pod["metadata"].get("labels", {})
    wanted = spec["matchConstraints"]["objectSelector"]["matchExpressions"]
    assert all(expression["operator"] == "Exists" for expression in wanted)
    return all(expression["key"] in labels for expression in wanted)


def _evaluate(expression: str, pod: Document) -> Any:
    for field, kind in _TYPED_FIELD.findall(expression):
        assert field in (kind, "value"), f"a {kind} stands in the field {field}"
    untyped = _TYPE.sub("{", expression.replace("JSONPatch{", "{"))
    # Of Kubernetes' own library, which this implementation lacks.
    functions = {"indexOf": lambda items, item: items.index(item)}
    return cel.evaluate(_FIELD.sub(r'"\1": ', untyped), cel.Context({"object": pod}, functions))


def _patch(pod: Document, operations: list[Document]) -> Document:
    pod = copy.deepcopy(pod)
    for operation in operations:
        assert operation["op"] == "add"
        *parents, last = operation["path"].strip("/").split("/")
        target: Any = pod
        for part in parents:
            target = target[int(part) if isinstance(target, list) else part]
        if isinstance(target, list):
            target.insert(len(target) if last == "-" else int(last), operation["value"])
        else:
            target[last] = operation["value"]
    return pod


def _apply(value: Any, wanted: Any, field: str = "") -> Any:
    match wanted:
        case dict():
            merged = dict(value or {})
            return merged | {key: _apply(merged.get(key), item, key) for key, item in wanted.items()}
        case list():
            assert field in _MERGE_KEYS, (
                f"{field} is an atomic list, which an apply configuration cannot change"
            )
            key = _MERGE_KEYS[field]
            merged_list = {item[key]: item for item in value or []}
            for item in wanted:
                merged_list[item[key]] = _apply(merged_list.get(item[key]), item)
            return list(merged_list.values())
        case _:
            return wanted
