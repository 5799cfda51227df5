// SPDX-License-Identifier: Apache-2.0
module keyferry.example/reader

go 1.19
