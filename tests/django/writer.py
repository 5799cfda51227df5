# SPDX-License-Identifier: Apache-2.0
"""One of several processes of the app that write all the time; run as a program: ``writer.py NAME``.

It changes and deletes rows whose holder is NAME and those that it made, and remembers what it wrote: nobody
else changes their text. It stops when its standard input ends, and then tells all as JSON.
"""

import json
import random
import select
import sys

import django

_PAUSE_SECONDS = 0.01


def main(name: str) -> None:
    """Write until told to stop; fail at the first row that is not what was written."""
    from fedha.accounts.models import Account

    chance = random.Random(name)  # noqa: S311 -- for variety, not for secrets
    texts = dict(Account.objects.filter(holder=name).values_list("pk", "iban"))
    turns = 0
    while not select.select([sys.stdin], [], [], _PAUSE_SECONDS)[0]:
        turns += 1
        pk = chance.choice(list(texts))
        account = Account.objects.get(pk=pk)
        assert account.iban == texts[pk], f"row {pk} holds {account.iban!r}, not {texts[pk]!r}"
        match chance.randrange(10):
            case 0:
                account.delete()
                del texts[pk]
            case 1:
                made = Account.objects.create(holder=name, iban=f"made by {name} in turn {turns}")
                texts[made.pk] = made.iban
            case _:
                account.iban = texts[pk] = f"changed by {name} in turn {turns}"
                account.save()
    print(json.dumps({"texts": texts, "turns": turns}))  # noqa: T201 -- its only output


if __name__ == "__main__":
    django.setup()
    main(sys.argv[1])
