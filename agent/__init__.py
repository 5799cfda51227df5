# SPDX-License-Identifier: Apache-2.0
"""The keyferry agent: carries keys from their provider to the volume that an application reads."""
