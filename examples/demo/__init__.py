# SPDX-License-Identifier: Apache-2.0
"""``make demo``: three rotations, an outage and a killed agent, in real processes, drawn as a timeline."""
