// SPDX-License-Identifier: Apache-2.0

// Reads one key of a keyferry volume with nothing but the standard library: reader VOLUME KEY
//
// For each line on standard input it looks once and tells each version's id, state and a digest of its bytes.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

var (
	errNotPublished = errors.New("not-published")
	errWithdrawn    = errors.New("withdrawn")
	errBroken       = errors.New("broken") // the text of what broke could quote a key
)

type version struct {
	id          string
	activatesAt *time.Time
	key         []byte
}

// Keyring is what was read last. Its Look is for one goroutine at a time.
type Keyring struct {
	volume, key, link      string
	versions               []version
	withdrawn              bool
	publishedAt, activated time.Time
}

// Look returns the versions, and the index of the active one. States follow from it: those before it are
// deactivated, those after it pre-active, unless they never activate.
func (k *Keyring) Look() ([]version, int, error) {
	if err := k.refresh(); k.link == "" && err != nil {
		return nil, 0, err
	} else if err != nil && !errors.Is(err, errNotPublished) {
		fmt.Fprintln(os.Stderr, "keyferry: the last generation stays in use:", err)
	}
	if k.withdrawn {
		return nil, 0, errWithdrawn
	}
	now := latest(time.Now(), k.publishedAt, k.activated)
	first, active := -1, -1
	for i, v := range k.versions {
		if v.activatesAt != nil && first < 0 {
			first = i
		}
		if v.activatesAt != nil && !v.activatesAt.After(now) {
			active = i
		}
	}
	if active < 0 {
		return k.versions, first, nil
	}
	// Not now itself: a clock that was ahead would bring later versions forward.
	k.activated = latest(k.activated, *k.versions[active].activatesAt)
	return k.versions, active, nil
}

func latest(times ...time.Time) (found time.Time) {
	for _, at := range times {
		if at.After(found) {
			found = at
		}
	}
	return found
}

func (k *Keyring) refresh() error {
	for attempt := 0; attempt < 10; attempt++ {
		link, err := os.Readlink(k.volume + "/..data")
		if errors.Is(err, os.ErrNotExist) {
			return errNotPublished // and no withdrawal
		} else if err != nil {
			return err
		}
		if link == k.link {
			return nil
		}
		if !strings.HasPrefix(link, "..gen-") || strings.Contains(link, "/") {
			return errBroken
		}
		data, err := read(k.volume + "/" + link)
		if errors.Is(err, os.ErrNotExist) {
			continue // retired between two calls: another one is published
		} else if err != nil {
			return err
		}
		return k.take(link, data)
	}
	return errBroken
}

func read(path string) ([]byte, error) {
	directory, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(directory)
	flags := syscall.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_CLOEXEC
	descriptor, err := syscall.Openat(directory, "keyring.json", flags, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(descriptor), "keyring.json")
	defer file.Close()
	return io.ReadAll(file)
}

// take replaces what is kept, if data is a keyring that breaks no rule.
func (k *Keyring) take(link string, data []byte) error {
	// Into maps: structs would match the names of fields without regard to case.
	var document map[string]any
	if !utf8.Valid(data) || json.Unmarshal(data, &document) != nil || document["schema"] != "keyferry/v1" {
		return errBroken
	}
	publishedAt, err := moment(document["published_at"])
	keys, ok := document["keys"].(map[string]any)
	if err != nil || !ok {
		return errBroken
	}
	ring, ok := keys[k.key].(map[string]any)
	if !ok && keys[k.key] == nil {
		return errNotPublished
	}
	if ring["withdrawn"] != nil {
		k.link, k.versions, k.withdrawn = link, nil, true
		return nil
	}
	entries, _ := ring["versions"].([]any)
	versions, usable := []version{}, false
	for _, entry := range entries {
		fields, _ := entry.(map[string]any)
		v := version{}
		if v.id, ok = fields["id"].(string); !ok {
			return errBroken
		}
		if v.key, ok = decode(fields, ring["encoding"], ring["length"]); !ok {
			return errBroken
		}
		if fields["activates_at"] != nil {
			at, err := moment(fields["activates_at"])
			if err != nil {
				return err
			}
			v.activatesAt, usable = &at, true
		}
		versions = append(versions, v)
	}
	if !usable {
		return errBroken
	}
	k.link, k.versions, k.withdrawn, k.publishedAt = link, versions, false, publishedAt
	return nil
}

func decode(fields map[string]any, encoding, length any) (key []byte, ok bool) {
	text, ok := fields["material"].(string)
	if !ok || (fields["binary"] == true && encoding != "binary") {
		return nil, false
	}
	if encoding == "text" || (encoding == "binary" && fields["binary"] != true) {
		key = []byte(text)
	} else if strings.ContainsAny(text, "\r\n") {
		return nil, false // Go's decoders would skip them
	}
	err := error(nil)
	switch {
	case key != nil:
	case encoding == "base64" || encoding == "binary":
		key, err = base64.StdEncoding.Strict().DecodeString(text)
	case encoding == "base64url" && len(text)%4 == 0:
		key, err = base64.URLEncoding.Strict().DecodeString(text)
	case encoding == "base64url":
		key, err = base64.RawURLEncoding.Strict().DecodeString(text)
	case encoding == "hex":
		key, err = hex.DecodeString(text)
	default:
		return nil, false
	}
	sized := length == nil || length == float64(len(key))
	return key, err == nil && sized && len(bytes.Trim(key, "\x00")) > 0
}

func moment(field any) (time.Time, error) {
	text, _ := field.(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, errBroken
	}
	return at, nil
}

func answer(k *Keyring) map[string]any {
	versions, active, err := k.Look()
	if errors.Is(err, errNotPublished) || errors.Is(err, errWithdrawn) {
		return map[string]any{"result": err.Error()}
	} else if err != nil {
		return map[string]any{"result": "broken"}
	}
	found := []map[string]string{}
	for i, v := range versions {
		state := "deactivated"
		if i == active {
			state = "active"
		} else if i > active && v.activatesAt != nil {
			state = "pre-active"
		}
		found = append(found, map[string]string{"id": v.id, "state": state, "sha256": fmt.Sprintf("%x", sha256.Sum256(v.key))})
	}
	return map[string]any{"result": "ok", "versions": found}
}

func main() {
	keyring := &Keyring{volume: os.Args[1], key: os.Args[2]}
	lines, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for lines.Scan() {
		if err := out.Encode(answer(keyring)); err != nil {
			os.Exit(1)
		}
	}
}
