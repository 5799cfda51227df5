# SPDX-License-Identifier: Apache-2.0
"""``manage.py`` of the example, in this process: what it does to rows, and what it answers."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, connections, models, router, transaction
from django.test.utils import isolate_apps

from fedha.accounts.models import Account
from fedha.encryption.fields import EncryptedTextField
from fedha.encryption.key_manager import KeyManager
from fedha.encryption.reencryption import Column, encrypted_columns
from keyferry import FileAdapter
from tests.adapter.volume import Volume, version, withdrawn
from tests.daemon.agent_process import eventually
from tests.django.rows import all_stored, legacy, store, stored

COLUMN = Column(Account, "iban", "default")
ONE, TWO, THREE = (version(str(number)) for number in (1, 2, 3))


@pytest.fixture(autouse=True)
def rows(database: None, volume: Volume) -> list[Account]:
    """Make five rows at version 1, the first without its name; version 2 is active by now."""
    volume.publish(ONE)
    made = [Account.objects.create(iban=f"row {number}") for number in range(5)]
    store(made[0], legacy(settings.KMS_ADAPTER.active, "row 0"))
    volume.publish(ONE, TWO)
    return made


@pytest.fixture
def keys() -> KeyManager:
    return KeyManager(settings.KMS_ADAPTER)


class Interfering(KeyManager):
    """Does something between the moment that a row was read and the moment that it is written."""

    def __init__(self, interfere: Callable[[], object]) -> None:
        super().__init__(settings.KMS_ADAPTER)
        self._interfere: Callable[[], object] | None = interfere

    def encrypt(self, plaintext: str) -> str:
        interfere, self._interfere = self._interfere, None
        if interfere is not None:
            interfere()
        return super().encrypt(plaintext)


def rotate(**options: Any) -> None:
    call_command("rotate_encryption_keys", **options)


def plaintexts() -> list[str]:
    return list(Account.objects.order_by("pk").values_list("iban", flat=True))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 500])
def test_all_rows_move_to_the_active_version(capsys: pytest.CaptureFixture[str], batch_size: int) -> None:
    rotate(batch_size=batch_size)
    assert all(ciphertext.startswith("kf1:2:") for ciphertext in all_stored())
    assert plaintexts() == [f"row {number}" for number in range(5)]
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "accounts.Account.iban: 5 re-encrypted, 0 done by the app",
        "accounts.Account.tax_id: 0 re-encrypted, 0 done by the app",
    ]
    assert told.err == "", "a progress bar is for terminals"
    before = all_stored()
    rotate()
    assert all_stored() == before, "the second time there is nothing to do"


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = all_stored()
    rotate(dry_run=True)
    assert all_stored() == before
    assert capsys.readouterr().out.startswith("accounts.Account.iban: 5 to re-encrypt, 0 done by the app\n")


def test_it_goes_on_where_it_was_stopped(keys: KeyManager) -> None:
    """Killed after any row: what is done stays done, and nothing else is remembered."""
    work = COLUMN.reencrypt(keys, batch_size=2)
    for _ in range(3):
        next(work)
    done = all_stored()[:3]
    assert COLUMN.outdated(keys).count() == 2
    rotate()
    assert all_stored()[:3] == done
    assert COLUMN.outdated(keys).count() == 0
    assert plaintexts() == [f"row {number}" for number in range(5)]


class TestConcurrentWrites:
    def test_the_app_s_write_wins(self, rows: list[Account]) -> None:
        keys = Interfering(lambda: Account.objects.filter(pk=rows[0].pk).update(iban="new"))
        outcomes = [outcome for _, outcome in COLUMN.reencrypt(keys, 500)]
        assert outcomes == ["overtaken", *["renewed"] * 4]
        assert plaintexts()[0] == "new"

    def test_a_deleted_row_stays_deleted(self, rows: list[Account]) -> None:
        keys = Interfering(lambda: Account.objects.filter(pk=rows[0].pk).delete())
        assert next(COLUMN.reencrypt(keys, 500))[1] == "overtaken"
        assert plaintexts() == [f"row {number}" for number in range(1, 5)]

    def test_a_write_of_a_replica_that_is_behind_is_taken_up(
        self, rows: list[Account], volume: Volume
    ) -> None:
        """It encrypts with the earlier version: its text wins, and moves on as well."""
        behind = FileAdapter(volume.path, check_interval=3600)
        volume.publish(ONE)
        behind.wait()
        volume.publish(ONE, TWO)
        keys = Interfering(lambda: store(rows[0], KeyManager(behind).encrypt("late")))
        assert next(COLUMN.reencrypt(keys, 500))[1] == "renewed"
        assert (plaintexts()[0], stored(rows[0])[:6]) == ("late", "kf1:2:")

    @pytest.mark.parametrize("database", [pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
    def test_a_write_that_is_being_committed_wins(self, rows: list[Account], keys: KeyManager) -> None:
        """Whoever waits for a row compares it anew, once it is free. SQLite lets nobody come so far."""
        with ThreadPoolExecutor(1) as pool, connection.cursor() as cursor:
            with transaction.atomic():
                Account.objects.filter(pk=rows[0].pk).update(iban="new")
                first = pool.submit(lambda: next(COLUMN.reencrypt(keys, 500)))

                def is_waited_for() -> bool:
                    cursor.execute("SELECT FROM pg_locks WHERE NOT granted")
                    return bool(cursor.rowcount)

                eventually(is_waited_for, within=30)
            assert first.result(timeout=30) == (rows[0].pk, "overtaken")
            pool.submit(connections.close_all).result(timeout=30)
        assert plaintexts()[0] == "new"

    def test_a_rotation_in_the_middle(self, volume: Volume, capsys: pytest.CaptureFixture[str]) -> None:
        """What was done before it is told as left over, and the next run takes it."""
        keys = Interfering(lambda: None)
        work = COLUMN.reencrypt(keys, batch_size=2)
        assert [next(work)[1] for _ in range(2)] == ["renewed"] * 2
        volume.publish(ONE, TWO, THREE)
        assert [outcome for _, outcome in work] == ["renewed"] * 3
        assert [ciphertext[:6] for ciphertext in all_stored()] == ["kf1:2:"] * 2 + ["kf1:3:"] * 3
        rotate()
        assert {ciphertext[:6] for ciphertext in all_stored()} == {"kf1:3:"}

    def test_rows_that_come_behind_it_are_told(
        self, rows: list[Account], monkeypatch: pytest.MonkeyPatch, keys: KeyManager
    ) -> None:
        old = stored(rows[1])
        renew = Column._renew

        def write_behind(column: Column, *args: Any, **options: Any) -> object:
            outcome = renew(column, *args, **options)
            store(rows[0], old)
            return outcome

        monkeypatch.setattr(Column, "_renew", write_behind)
        with pytest.raises(CommandError) as caught:
            rotate()
        assert str(caught.value) == "1 values were written with an earlier version meanwhile: run it again"
        assert caught.value.returncode == 3


def test_nothing_goes_back_to_an_earlier_version(rows: list[Account], volume: Volume) -> None:
    """A replica that is ahead wrote with what is still pre-active here."""
    volume.publish(ONE, TWO, THREE)
    Account.objects.filter(pk=rows[0].pk).update(iban="ahead")
    ahead = stored(rows[0])
    # Another adapter: this process has seen version 3 in use, and will never take that back.
    settings.KMS_ADAPTER = FileAdapter(volume.path, check_interval=0)
    volume.publish(ONE, TWO, version("3", activates_at=time.time() + 3600, material=THREE["material"]))
    rotate()
    assert stored(rows[0]) == ahead
    assert {ciphertext[:6] for ciphertext in all_stored()[1:]} == {"kf1:2:"}


class TestUnreadable:
    def test_rows_are_left_and_told(self, rows: list[Account], capsys: pytest.CaptureFixture[str]) -> None:
        damaged = stored(rows[1])[:-8] + "AAAAAAAA"
        foreign = stored(rows[2]).replace("kf1:1:", "kf1:9:")
        store(rows[1], damaged)
        store(rows[2], foreign)
        with pytest.raises(CommandError) as caught:
            rotate()
        assert str(caught.value) == (
            "2 values cannot be read and were left as they are: bring the version that they name back to the"
            " key store, or restore them"
        )
        assert caught.value.returncode == 1
        pks = f"{rows[1].pk}, {rows[2].pk}"
        assert f"3 re-encrypted, 0 done by the app, 2 unreadable: pk {pks}\n" in capsys.readouterr().out
        assert all_stored()[1:3] == [damaged, foreign]

    def test_a_dry_run_finds_them(self, rows: list[Account]) -> None:
        store(rows[1], "no ciphertext")
        with pytest.raises(CommandError, match=r"^1 values cannot be read"):
            rotate(dry_run=True)

    def test_a_list_of_them_has_an_end(self, capsys: pytest.CaptureFixture[str]) -> None:
        made = [Account.objects.create() for _ in range(20)]
        for account in made:
            store(account, "no ciphertext")
        with pytest.raises(CommandError, match=r"^20 values cannot be read"):
            rotate()
        assert "20 unreadable: pk 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, ...\n" in capsys.readouterr().out


def test_a_withdrawn_key_ends_it(volume: Volume) -> None:
    """It is no damage of a row."""
    before = all_stored()
    volume.publish(master=withdrawn("denied by the key store"))
    with pytest.raises(CommandError, match=r"^key 'master' was withdrawn \(denied by the key store\)"):
        rotate()
    assert all_stored() == before


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Column, "_renew", interrupt)
    with pytest.raises(CommandError) as caught:
        rotate()
    assert str(caught.value) == "interrupted; every row is whole. Run it again to go on"
    assert caught.value.returncode == 130


@pytest.mark.parametrize("size", ["0", "-1", "many"])
def test_a_batch_has_a_size(size: str) -> None:
    with pytest.raises(CommandError, match=rf"--batch-size: '{size}' is not a number above 0$"):
        call_command("rotate_encryption_keys", "--batch-size", size)


def test_models_may_be_whatever_they_like(volume: Volume, keys: KeyManager) -> None:
    """Their managers hide rows, even the one that Django itself asks, and their fields have any name."""
    with isolate_apps("fedha.accounts"):

        class Shown(models.Manager):  # type: ignore[misc]
            def get_queryset(self) -> Any:
                return super().get_queryset().filter(stored=False)

        class Item(models.Model):  # type: ignore[misc]
            stored = models.BooleanField(default=True)
            text = EncryptedTextField()
            objects = models.Manager()
            shown = Shown()

            class Meta:
                app_label = "accounts"
                base_manager_name = "shown"

            def __str__(self) -> str:
                return str(self.pk)

    with connection.schema_editor() as editor:
        editor.create_model(Item)
    volume.publish(ONE)
    item = Item.objects.create(text="hidden")
    volume.publish(ONE, TWO)
    column = Column(Item, "text", "default")
    assert list(column.reencrypt(keys, 500)) == [(item.pk, "renewed")]
    assert column.outdated(keys).count() == 0
    assert Item.objects.get().text == "hidden"


def test_every_encrypted_column_is_found() -> None:
    assert [str(column) for column in encrypted_columns("default")] == [
        "accounts.Account.iban",
        "accounts.Account.tax_id",
    ]


class TestDatabases:
    def test_columns_are_where_the_router_has_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Router:
            def allow_migrate(self, database: str, app_label: str, **_: object) -> bool:
                return (database, app_label) == ("default", "accounts")

        assert len(encrypted_columns("other")) == 2, "without a router all are everywhere"
        monkeypatch.setattr(router, "routers", [Router()])
        assert len(encrypted_columns("default")) == 2
        assert encrypted_columns("other") == []

    def test_a_database_without_the_table(self) -> None:
        with connection.schema_editor() as editor:
            editor.delete_model(Account)
        with pytest.raises(CommandError, match=r"^database 'default': .*accounts_account") as caught:
            rotate()
        assert caught.value.returncode == 1

    def test_one_that_is_not_configured(self) -> None:
        with pytest.raises(CommandError, match=r"--database: invalid choice: 'elsewhere'"):
            call_command("rotate_encryption_keys", "--database", "elsewhere")


class TestBootstrap:
    def test_a_key_that_works(self, capsys: pytest.CaptureFixture[str]) -> None:
        call_command("bootstrap_master_key")
        assert capsys.readouterr().out.splitlines() == [
            f"master key, version 1: deactivated, {ONE['fingerprint']}",
            f"master key, version 2: active, {TWO['fingerprint']}",
        ]

    def test_not_in_time(self, volume: Volume) -> None:
        volume.unpublish()
        settings.KMS_ADAPTER = FileAdapter(volume.path)
        with pytest.raises(CommandError, match=r"^nothing is published in ") as caught:
            call_command("bootstrap_master_key", timeout=0)
        assert caught.value.returncode == 3

    def test_withdrawn(self, volume: Volume) -> None:
        volume.publish(master=withdrawn())
        with pytest.raises(CommandError, match=r"^key 'master' was withdrawn") as caught:
            call_command("bootstrap_master_key")
        assert caught.value.returncode == 1
