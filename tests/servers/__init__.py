# SPDX-License-Identifier: Apache-2.0
"""Real servers and doubles on loopback, for tests, the demo and the benchmarks. Nothing here needs pytest."""
