# SPDX-License-Identifier: Apache-2.0
"""Speed and memory, measured against the goals: ``make bench``."""
