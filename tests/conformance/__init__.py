# SPDX-License-Identifier: Apache-2.0
"""The conformance kit: volumes with the answers that any reader, in any language, must give.

    python -m tests.conformance DIR                      write the cases to DIR
    python -m tests.conformance DIR -- READER ...        and put a reader to the test

A reader is a command that is started as ``READER ... VOLUME KEY``. For each line on its standard input it
looks at the volume once and answers with one line of JSON:

    {"result": "ok", "versions": [{"id": "5", "state": "active", "sha256": "<of the key's decoded bytes>"}]}
    {"result": "not-published"}     there is nothing yet, or not this key
    {"result": "withdrawn"}         the key may no longer be used
    {"result": "broken"}            what is there breaks the contract, and there was nothing before

A case is a directory: ``volume`` has all generations that it needs, and ``case.json`` tells in which steps
``..data`` moves from one to the next, and each step's answer.
"""
