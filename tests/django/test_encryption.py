# SPDX-License-Identifier: Apache-2.0
"""The field and the KeyManager behind it, on volumes written by the letter of the contract."""

import base64
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.core.management import call_command
from django.db.models import Case, F, TextField, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Upper

from fedha.accounts.models import Account
from fedha.encryption.fields import EncryptedTextField
from fedha.encryption.key_manager import KeyManager, UnreadableError
from keyferry import EnvAdapter, ReadOnlyKeyError, UnknownVersionError
from tests.adapter.volume import Volume, keyring, version
from tests.django.rows import IBAN, legacy, stored

ENCRYPTED = EncryptedTextField()

pytestmark = pytest.mark.usefixtures("database", "volume")


@pytest.fixture
def keys(volume: Volume) -> KeyManager:
    return KeyManager(settings.KMS_ADAPTER)


def test_what_is_stored_is_encrypted_and_names_its_version(volume: Volume) -> None:
    volume.publish(version("5"))
    one, two = (Account.objects.create(holder="Ada", iban=IBAN) for _ in range(2))
    assert stored(one).startswith("kf1:5:")
    assert IBAN not in stored(one)
    assert stored(one) != stored(two), "the same text gives another ciphertext each time"
    assert Account.objects.get(pk=one.pk).iban == IBAN
    assert stored(one, "tax_id") is None
    assert Account.objects.get(pk=one.pk).tax_id is None


def test_a_rotation_arrives_in_a_running_process(volume: Volume) -> None:
    """The first mistake of the code that this replaces: it kept its first key for ever."""
    old, new = version("1"), version("2")
    volume.publish(old)
    before = Account.objects.create(iban="before")
    volume.publish(old, new)
    after = Account.objects.create(iban="after")
    assert (stored(before)[:6], stored(after)[:6]) == ("kf1:1:", "kf1:2:")
    assert list(Account.objects.order_by("pk").values_list("iban", flat=True)) == ["before", "after"]


def test_every_way_to_write_encrypts(volume: Volume) -> None:
    volume.publish(version("1"))
    Account.objects.bulk_create([Account(iban="one"), Account(iban="two"), Account(iban="three")])
    one, two, three = Account.objects.order_by("pk")
    Account.objects.filter(pk=one.pk).update(iban="ONE")
    two.iban = "TWO"
    Account.objects.bulk_update([two], ["iban"])
    three.iban = "THREE"
    three.save(update_fields=["iban"])
    Account.objects.bulk_update([one, two], ["tax_id"])
    assert stored(one, "tax_id") is None
    assert all(stored(row).startswith("kf1:1:") for row in (one, two, three))
    assert [row.iban for row in Account.objects.order_by("pk")] == ["ONE", "TWO", "THREE"]


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param(F("holder"), id="another column"),
        pytest.param(Upper("iban"), id="a function of its own column"),
        pytest.param(Value("DE03"), id="text"),
        pytest.param(Value("DE03", TextField()), id="text of another field"),
        pytest.param(Value(b"DE03"), id="bytes"),
        pytest.param(Case(When(holder="Ada", then=Value("DE03"))), id="a case of text"),
        pytest.param(
            Case(When(holder="Bob", then=Value("DE03", ENCRYPTED)), default=Value("DE04")),
            id="a default of text",
        ),
        pytest.param(
            Case(default=F("holder"), output_field=ENCRYPTED), id="a case that says it is encrypted"
        ),
        pytest.param(Cast("holder", ENCRYPTED), id="a cast that says so"),
        pytest.param(RawSQL("'DE03'", (), ENCRYPTED), id="SQL that says so"),
    ],
)
def test_no_expression_stores_its_text_as_it_is(volume: Volume, expression: Any) -> None:
    """The database computes it, and cannot encrypt."""
    volume.publish(version("1"))
    account = Account.objects.create(holder="Ada", iban=IBAN)
    message = (
        "accounts.Account.iban is encrypted and takes no expression, whose result would be stored as it is;"
        " read the row, set the field to the text and save it"
    )
    with pytest.raises(FieldError, match=f"^{message}$"):
        Account.objects.update(iban=expression)
    account.iban = expression
    with pytest.raises(FieldError, match=f"^{message}$"):
        account.save()
    with pytest.raises(FieldError, match=f"^{message}$"):
        Account.objects.bulk_update([account], ["iban"])
    assert Account.objects.get(pk=account.pk).iban == IBAN


def test_nor_does_a_new_row(volume: Volume) -> None:
    volume.publish(version("1"))
    with pytest.raises(FieldError, match="takes no expression"):
        Account.objects.create(iban=Value("DE03"))


def test_it_cannot_be_searched(volume: Volume) -> None:
    """A lookup that silently finds nothing is worse than an error."""
    volume.publish(version("1"))
    Account.objects.create(iban=IBAN)
    message = (
        "accounts.Account.iban is encrypted and cannot be searched by 'exact', only by 'isnull'; store a"
    )
    with pytest.raises(FieldError, match=f"^{message}"):
        Account.objects.filter(iban=IBAN)
    with pytest.raises(FieldError, match=r"cannot be searched by 'startswith', only by 'isnull'"):
        Account.objects.filter(iban__startswith="DE")
    with pytest.raises(FieldError, match=r"cannot be searched by 'exact', only by 'isnull'"):
        Account.objects.filter(iban=F("holder"))
    assert Account.objects.filter(tax_id__isnull=True).count() == 1
    assert Account.objects.filter(tax_id=None).count() == 1
    assert Account.objects.filter(iban=None).count() == 0
    assert Account.objects.exclude(iban=None).count() == 1


@pytest.mark.parametrize("marks", ["-", "_", "-_", ""], ids=["minus", "underscore", "both", "neither"])
def test_url_safe_keys_are_decoded(volume: Volume, keys: KeyManager, marks: str) -> None:
    """The second mistake: b64decode drops what is not in its alphabet, and wants padding."""
    material = next(text for text in _keys() if {"-", "_"} & set(text) == set(marks))
    volume.publish(version("1", material=material))
    box = base64.urlsafe_b64decode(keys.encrypt(IBAN).rpartition(":")[2])
    right = base64.urlsafe_b64decode(material + "=")
    assert AESGCM(right).decrypt(box[:12], box[12:], b"kf1:1:").decode() == IBAN


def test_old_ciphertexts_without_an_id_are_read(volume: Volume, keys: KeyManager) -> None:
    versions = [version(str(number)) for number in (1, 2, 3)]
    volume.publish(*versions)
    ciphertexts = [legacy(key, IBAN) for key in settings.KMS_ADAPTER.keyring]
    assert [keys.decrypt(ciphertext) for ciphertext in ciphertexts] == [IBAN] * 3
    volume.publish(*versions[1:])
    with pytest.raises(
        UnreadableError, match=r"^no version of the master key opens the ciphertext; tried 3, 2$"
    ):
        keys.decrypt(ciphertexts[0])


def test_an_id_may_be_anything(volume: Volume, keys: KeyManager) -> None:
    """Ids are the provider's: an UUID, a digest with a colon, whatever a keyring file has."""
    ids = ["sha256:0011", "a b%", "ключ", "1", "1:2"]
    ring = [version(id_) for id_ in ids]
    for count in range(1, len(ids) + 1):
        volume.publish(*ring[:count])
        ciphertext = keys.encrypt(IBAN)
        assert ciphertext.count(":") == 2
        assert ciphertext.startswith(keys.settled())
        volume.publish(*ring, version("last"))
        assert keys.decrypt(ciphertext) == IBAN
        assert not ciphertext.startswith(keys.settled())


def test_a_key_that_moved_to_another_store_has_another_id(volume: Volume, keys: KeyManager) -> None:
    """A variable's id is its fingerprint; the same value in Vault is version 1."""
    value = version("1")
    volume.publish({**value, "id": value["fingerprint"]})
    account = Account.objects.create(iban=IBAN)
    assert stored(account).startswith("kf1:sha256%3A")
    volume.publish(value, version("2"))
    assert Account.objects.get(pk=account.pk).iban == IBAN
    call_command("rotate_encryption_keys")
    assert stored(account).startswith("kf1:2:")
    assert Account.objects.get(pk=account.pk).iban == IBAN


def test_a_replica_ahead_of_this_one_is_not_outdated(volume: Volume, keys: KeyManager) -> None:
    volume.publish(version("1"), version("2"), version("3", activates_at=time.time() + 3600))
    assert keys.settled() == ("kf1:2:", "kf1:3:")


class TestRefused:
    @pytest.fixture
    def ciphertext(self, volume: Volume, keys: KeyManager) -> str:
        volume.publish(version("1"), version("2"))
        return keys.encrypt(IBAN)

    def test_altered(self, keys: KeyManager, ciphertext: str) -> None:
        other = "A" if ciphertext[20] != "A" else "B"
        with pytest.raises(UnreadableError, match=r"^no version of the master key opens .* tried 2$"):
            keys.decrypt(ciphertext[:20] + other + ciphertext[21:])

    def test_relabelled(self, volume: Volume, keys: KeyManager) -> None:
        """Two versions with one value: only the authenticated header tells them apart."""
        one = version("1")
        volume.publish(one, version("2", material=one["material"]))
        with pytest.raises(UnreadableError, match=r"tried 1$"):
            keys.decrypt(keys.encrypt(IBAN).replace("kf1:2:", "kf1:1:"))

    @pytest.mark.parametrize("body", ["", "AAAA", "A", "!"], ids=["empty", "short", "no base64", "no digit"])
    def test_no_ciphertext(self, keys: KeyManager, ciphertext: str, body: str) -> None:
        with pytest.raises(UnreadableError):
            keys.decrypt("kf1:2:" + body)

    def test_another_format(self, keys: KeyManager, ciphertext: str) -> None:
        with pytest.raises(UnreadableError, match=r"^the ciphertext's format is not kf1$"):
            keys.decrypt(ciphertext.replace("kf1:", "kf2:"))

    def test_unknown_version(self, keys: KeyManager, ciphertext: str) -> None:
        with pytest.raises(UnknownVersionError, match=r"has no version '7', only: 1, 2\."):
            keys.decrypt(ciphertext.replace("kf1:2:", "kf1:7:"))

    def test_a_key_of_another_length(self, volume: Volume, keys: KeyManager) -> None:
        volume.publish(master=keyring(version("1"), encoding="text", length=None))
        message = (
            r"^version 1 of the master key has 43 bytes, and AES-256 takes 32: set the key's encoding in the"
            r" agent's configuration \(base64url for secrets\.token_urlsafe\(32\)\) and length: 32;"
        )
        with pytest.raises(ImproperlyConfigured, match=message):
            keys.encrypt(IBAN)


def test_development_needs_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ENCRYPTION_KEY", next(_keys()))
    monkeypatch.setenv("KEYFERRY_ENCODING", "base64url")
    monkeypatch.setattr(settings, "KMS_ADAPTER", EnvAdapter())
    account = Account.objects.create(iban=IBAN)
    assert stored(account).startswith("kf1:sha256%3A")
    assert Account.objects.get(pk=account.pk).iban == IBAN


def test_the_seam_refuses_to_rotate() -> None:
    with pytest.raises(ReadOnlyKeyError, match=r"keyferry-agent rotate"):
        settings.KMS_ADAPTER.rotate_key()


def _keys() -> Iterator[str]:
    while True:
        yield secrets.token_urlsafe(32)
