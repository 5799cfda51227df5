// SPDX-License-Identifier: Apache-2.0
// Reads one key of a keyferry volume with nothing but Node.js: node reader.mjs VOLUME KEY
//
// For each line on standard input it looks once and tells each version's id, state and a digest of its bytes.

import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readFileSync, readlinkSync } from "node:fs";
import { createInterface } from "node:readline";

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

class Broken extends Error {}

// Errors say which rule, never what the text was.
function must(condition, rule) {
  if (!condition) throw new Broken(rule);
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function time(text) {
  must(typeof text === "string" && TIME.test(text) && !Number.isNaN(Date.parse(text)), "a time is none");
  return Date.parse(text);
}

// Buffer skips what it does not know. Encoding the result again proves that nothing was skipped.
function decode({ material, binary }, encoding, length) {
  must(typeof material === "string" && (binary !== true || encoding === "binary"), "no material");
  const strict = (kind, text) => {
    const bytes = Buffer.from(text, kind);
    must(bytes.toString(kind) === text, "the material is not in its encoding");
    return bytes;
  };
  let bytes;
  if (binary === true) bytes = strict("base64", material);
  else if (encoding === "text" || encoding === "binary") bytes = Buffer.from(material);
  else if (encoding === "hex") bytes = strict("hex", material.toLowerCase());
  else if (encoding === "base64") bytes = strict("base64", material);
  else if (encoding === "base64url") {
    const digits = material.length % 4 === 0 ? material.replace(/={1,2}$/, "") : material;
    bytes = strict("base64url", digits);
  } else must(false, "another encoding");
  must(bytes.some((byte) => byte !== 0) && (length == null || bytes.length === length), "the length is wrong");
  return bytes;
}

function parse(data, key) {
  let document;
  try {
    document = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
  } catch {
    must(false, "no JSON"); // its own error quotes the text
  }
  must(isObject(document) && document.schema === "keyferry/v1" && isObject(document.keys), "another schema");
  const publishedAt = time(document.published_at);
  if (!Object.hasOwn(document.keys, key)) return null;
  const { encoding, length, versions, withdrawn } = document.keys[key];
  if (withdrawn != null) return { withdrawn };
  must(Array.isArray(versions) && versions.some((version) => version.activates_at != null), "no versions");
  must(versions.every(({ id }) => typeof id === "string"), "a version without an id");
  const read = (version) => ({
    id: version.id,
    activatesAt: version.activates_at == null ? Infinity : time(version.activates_at),
    bytes: decode(version, encoding, length),
  });
  return { publishedAt, versions: versions.map(read) };
}

export class Keyring {
  #activated = -Infinity;
  #kept = null;
  #link = null;

  constructor(volume, key) {
    this.volume = volume;
    this.key = key;
  }

  // Returns the versions with their states, null while there are none; throws if the key was withdrawn, and if
  // the contract is broken and there was nothing before.
  look() {
    try {
      this.#refresh();
    } catch (error) {
      if (this.#kept === null) throw error;
      console.error(`keyferry: the last generation stays in use: ${error.message}`);
    }
    if (this.#kept === null) return null;
    if (this.#kept.withdrawn !== undefined) throw new Error("withdrawn", { cause: this.#kept.withdrawn });
    const { publishedAt, versions } = this.#kept;
    const now = Math.max(Date.now(), publishedAt, this.#activated);
    let active = versions.findLastIndex((version) => version.activatesAt <= now);
    if (active < 0) active = versions.findIndex((version) => version.activatesAt < Infinity);
    // Not now itself: a clock that was ahead would bring later versions forward.
    else this.#activated = Math.max(this.#activated, versions[active].activatesAt);
    const state = (version, index) =>
      index === active ? "active" : index > active && version.activatesAt < Infinity ? "pre-active" : "deactivated";
    return versions.map(({ id, bytes }, index) => ({ id, bytes, state: state(versions[index], index) }));
  }

  #refresh() {
    for (let attempt = 0; attempt < 10; attempt++) {
      let link;
      try {
        link = readlinkSync(`${this.volume}/..data`);
      } catch (error) {
        if (error.code === "ENOENT") return; // not published, and no withdrawal
        throw error;
      }
      if (link === this.#link) return;
      must(link.startsWith("..gen-") && !link.includes("/"), "..data points elsewhere");
      const data = this.#read(link);
      if (data === null) continue; // retired between two calls: another one is published
      const found = parse(data, this.key);
      if (found !== null) [this.#kept, this.#link] = [found, link];
      return;
    }
    must(false, "..data points to nothing");
  }

  #read(link) {
    let directory = -1, file = -1;
    try {
      directory = openSync(`${this.volume}/${link}`, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      // Node has no openat; through /proc the file is that of the directory that was opened.
      file = openSync(`/proc/self/fd/${directory}/keyring.json`, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      must(fstatSync(file).isFile(), "keyring.json is no file");
      return readFileSync(file);
    } catch (error) {
      if (error.code === "ENOENT") return null;
      throw error;
    } finally {
      for (const descriptor of [file, directory]) if (descriptor >= 0) closeSync(descriptor);
    }
  }
}

function answer(keyring) {
  try {
    const versions = keyring.look();
    if (versions === null) return { result: "not-published" };
    const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");
    return { result: "ok", versions: versions.map(({ id, state, bytes }) => ({ id, state, sha256: digest(bytes) })) };
  } catch (error) {
    return { result: error.message === "withdrawn" ? "withdrawn" : "broken" };
  }
}

const keyring = new Keyring(process.argv[2], process.argv[3]);
for await (const _ of createInterface({ input: process.stdin })) console.log(JSON.stringify(answer(keyring)));
