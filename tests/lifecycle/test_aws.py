# SPDX-License-Identifier: Apache-2.0
"""What is AWS's own in making and rotating a key."""

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from agent.commands.new_material import new_material
from agent.errors import AgentError, ConfigError, DeniedError
from agent.providers import lifecycle
from agent.providers.lifecycle import ExistsError, FullError, Rotation
from tests.lifecycle.concurrency import at_once
from tests.lifecycle.stores import AwsKms, SecretsManager
from tests.servers.aws_proxy import operation, refusal
from tests.servers.scripted import Request, Response


def test_only_the_field(secrets_manager: SecretsManager) -> None:
    store = secrets_manager
    with closing(store.aws.client("secretsmanager")) as client:
        text = (
            '{"owner": "fedha","n":1.10, "half": "\\ud800", "key":"KEY" , "long":0.12345678901234567890123}\n'
        )
        first = new_material(store.key()).text
        client.create_secret(Name=store.name, SecretString=text.replace("KEY", first))
        lifecycle.rotate(store.keeper(), new_material(store.key()), Rotation(store.offer().versions[0].id))
        after = client.get_secret_value(SecretId=store.name)["SecretString"]
    second = store.values()[-1]
    assert second != first
    assert after == text.replace("KEY", second)


def test_creates_at_once_in_an_empty_secret(secrets_manager: SecretsManager) -> None:
    """As Terraform leaves it: who comes second is told that there is a key, as everywhere else."""
    store = secrets_manager
    with closing(store.aws.client("secretsmanager")) as client:
        client.create_secret(Name=store.name)
    keepers = [store.keeper() for _ in range(3)]
    answers = at_once(*(partial(lifecycle.create, k, new_material(store.key())) for k in keepers))
    assert len([answer for answer in answers if isinstance(answer, str)]) == 1, answers
    assert len([answer for answer in answers if isinstance(answer, ExistsError)]) == 2, answers
    assert len(store.values()) == 1


def test_a_create_that_was_overtaken(secrets_manager: SecretsManager) -> None:
    """The list was still empty, and the value is there by the time of the write."""
    store = secrets_manager
    with closing(store.aws.client("secretsmanager")) as client:
        client.create_secret(Name=store.name)
    store.aws.proxy.faults["PutSecretValue"] = refusal("ResourceExistsException")
    sentence = (
        f"^secret {store.name} in eu-west-1 was given another version by somebody else meanwhile; nothing "
        "was written$"
    )
    with pytest.raises(ExistsError, match=sentence):
        lifecycle.create(store.keeper(), new_material(store.key()))


def test_a_label_that_was_moved_back(secrets_manager: SecretsManager) -> None:
    """After a rollback the same version is current again, and another one can still follow it."""
    store = secrets_manager
    keeper = store.keeper()
    first = lifecycle.create(keeper, new_material(store.key()))
    second = lifecycle.rotate(keeper, new_material(store.key()), Rotation(first))
    client = store.aws.client("secretsmanager")
    client.update_secret_version_stage(
        SecretId=store.name, VersionStage="AWSCURRENT", MoveToVersionId=first, RemoveFromVersionId=second
    )
    client.close()
    third = lifecycle.rotate(keeper, new_material(store.key()), Rotation(first))
    assert len({first, second, third}) == 3
    assert store.offer().versions[-1].id == third


def test_a_rotation_under_way(secrets_manager: SecretsManager) -> None:
    store = secrets_manager
    keeper = store.keeper()
    first = lifecycle.create(keeper, new_material(store.key()))
    client = store.aws.client("secretsmanager")
    client.put_secret_value(
        SecretId=store.name,
        SecretString=json.dumps({"key": new_material(store.key()).text}),
        ClientRequestToken="0" * 32,
        VersionStages=["AWSPENDING"],
    )
    client.close()
    sentence = (
        rf"^secret {store.name} in eu-west-1 has a rotation under way already \(AWSPENDING, version 0+\)"
    )
    with pytest.raises(AgentError, match=sentence):
        lifecycle.rotate(keeper, new_material(store.key()), Rotation(first))


def test_an_arn_that_is_not_there(secrets_manager: SecretsManager) -> None:
    store = secrets_manager
    arn = f"arn:aws:secretsmanager:eu-west-1:123456789012:secret:{store.name}-AbCdEf"
    store.configure(store.section() | {"secret": arn})
    sentence = (
        "^keys.master.secret: is an ARN, and AWS chooses those when it makes a secret; give a name to "
        "make one$"
    )
    with pytest.raises(ConfigError, match=sentence):
        lifecycle.create(store.keeper(), new_material(store.key()))


def test_scheduled_for_deletion(secrets_manager: SecretsManager) -> None:
    """Its name is taken until then, and neither command brings it back."""
    store = secrets_manager
    store.run("bootstrap", "--create")
    client = store.aws.client("secretsmanager")
    client.delete_secret(SecretId=store.name)
    sentence = f"secret {store.name} in eu-west-1 is scheduled for deletion; `restore-secret` brings it back"
    head = "key master (aws-secrets-manager):"
    assert store.run("bootstrap", "--create") == (1, f"{head} failed: missing: {sentence}\n", "")
    assert store.run("rotate") == (1, "", f"keyferry-agent: missing: {sentence}\n")
    client.restore_secret(SecretId=store.name)
    client.close()
    assert store.run("bootstrap")[0] == 0


def test_one_that_is_there(secrets_manager: SecretsManager) -> None:
    store = secrets_manager
    keeper = store.keeper()
    lifecycle.create(keeper, new_material(store.key()))
    sentence = f"^secret {store.name} in eu-west-1 exists, and has a value; nothing was written$"
    with pytest.raises(ExistsError, match=sentence):
        lifecycle.create(keeper, new_material(store.key()))


def test_denied(secrets_manager: SecretsManager) -> None:
    store = secrets_manager
    store.aws.proxy.faults["CreateSecret"] = refusal("AccessDeniedException")
    with pytest.raises(DeniedError, match=r"^AWS refuses secretsmanager:CreateSecret on secret "):
        lifecycle.create(store.keeper(), new_material(store.key()))


def test_kms_denied(opened: Callable[[type[AwsKms]], AwsKms]) -> None:
    """Nothing is written before it is wrapped."""
    store = opened(AwsKms)
    store.aws.proxy.faults["Encrypt"] = refusal("AccessDeniedException")
    with pytest.raises(DeniedError, match=r"^AWS refuses kms:Encrypt on KMS key "):
        lifecycle.create(store.keeper(), new_material(store.key()))
    assert not store.path.exists()


def test_room(secrets_manager: SecretsManager) -> None:
    """AWS keeps 100 versions; from 99 on it is told, and beyond 100 it is asked for."""
    store = secrets_manager
    keeper = store.keeper()
    newest = lifecycle.create(keeper, new_material(store.key()))
    with closing(store.aws.client("secretsmanager")) as client:

        def put() -> str:
            value = json.dumps({"key": new_material(store.key()).text})
            return str(client.put_secret_value(SecretId=store.name, SecretString=value)["VersionId"])

        for _ in range(98):
            newest = put()
        warning = (
            "the secret has 99 of the 100 versions that AWS keeps: the one after the next rotation drops the "
            "oldest one, and what only that decrypts is lost; go on in a new secret before that"
        )
        assert store.offer().warnings == (warning,)
        newest = lifecycle.rotate(keeper, new_material(store.key()), Rotation(newest))
    sentence = (
        rf"^secret {store.name} in eu-west-1 has 100 versions, and AWS keeps 100: another one makes it drop"
    )
    with pytest.raises(FullError, match=sentence):
        lifecycle.rotate(keeper, new_material(store.key()), Rotation(newest))
    lifecycle.rotate(keeper, new_material(store.key()), Rotation(newest, drop_oldest=True))


@pytest.mark.parametrize("written", [False, True], ids=["not written", "written"])
def test_a_write_without_an_answer(secrets_manager: SecretsManager, written: bool) -> None:
    """Nothing is retried: whether it was written, ``check`` tells."""
    store = secrets_manager
    store.run("bootstrap", "--create")
    answer = store.aws.proxy.answer

    def lose(request: Request) -> Response:
        if operation(request) != "PutSecretValue":
            return answer(request)
        if written:
            answer(request)
        return refusal("InternalServiceError", 500)

    store.aws.proxy.answer = lose
    code, out, err = store.run("rotate")
    assert (code, out) == (3, "")
    assert err == (
        "keyferry-agent: unavailable: AWS answers 500 (InternalServiceError) to "
        "secretsmanager:PutSecretValue; the store may have made a version: look with `check` before rotating "
        "again\n"
    )
    assert len(store.values()) == 1 + written


def test_a_list_that_lags(secrets_manager: SecretsManager) -> None:
    """The version is made, and nobody else is to blame; exit 3 keeps scripts from making another one."""
    store = secrets_manager
    store.run("bootstrap", "--create")
    (first,) = store.offer().versions
    answer, before, made = store.aws.proxy.answer, dict[str, Response](), list[str]()

    def lag(request: Request) -> Response:
        name = operation(request)
        if made and name in before:
            return before[name]
        before[name] = answer(request)
        if name == "PutSecretValue":
            made.append(json.loads(before[name].body)["VersionId"])
        return before[name]

    store.aws.proxy.answer = lag
    code, out, err = store.run("rotate")
    assert (code, out) == (3, "")
    assert err == (
        f"keyferry-agent: version {made[0]} was made, but is not to be seen yet: the store still shows "
        f"{first.id}; `check` shows it when it is; do not rotate again\n"
    )
