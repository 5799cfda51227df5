# SPDX-License-Identifier: Apache-2.0
"""What `keyferry-agent` can be told to do, one module a subcommand."""
