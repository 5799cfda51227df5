# SPDX-License-Identifier: Apache-2.0
"""How Hypothesis runs here."""

import os

from hypothesis import settings

# No deadline: how long an example takes is the busy machine's doing. In CI the same examples every time, so
# that a change is judged by what it changed; on a developer's machine new ones, which is how bugs are found.
settings.register_profile("house", deadline=None)
settings.register_profile("ci", parent=settings.get_profile("house"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "house")
