# SPDX-License-Identifier: Apache-2.0
"""Field encryption under a master key that rotates: adapter, KeyManager, field, rows, re-encryption."""
