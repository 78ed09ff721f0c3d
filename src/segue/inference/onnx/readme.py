"""README of an exported folder: its files, and programs in Python and JavaScript that use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FILES = """\
# {model}: {items:,} items

An exported recommender. It answers without Python's torch, in every language with a runtime of ONNX.

| file | content |
|---|---|
| `encoder.onnx` | histories → queries |
| `items.npy` | ({rows}, {width}) float32: the vector of each item code; row 0 is no item |
| `scores.onnx` | the product of queries and `items.npy`, which must lie beside it |
| `item_ids.json` | id of the item with code 1, 2, 3, … |
{users}{transitions}| `cold.npy` | codes of items that the model cannot score |
{index}| `onnx.json` | settings, sizes and checksums |

## Inputs and scores

| input | shape and type | meaning |
|---|---|---|
{inputs}
- n and length are free; length is from {shortest} to {max_length}. A shorter history gets zeros behind its newest item.
- Only the newest {max_length} items of a history are read.
- The score of item i is the product of the first {width} columns of the query with row i of `items.npy`{offset}.
{repeats}
"""

_MEANINGS = {
    "users": ("(n,) int64", "code of the user: position in `user_ids.json`, from 1; 0 = unknown"),
    "items": ("(n, length) int64", "item codes, oldest first, 0 behind the newest"),
    "lengths": ("(n,) int64", "number of items of each history, from 1"),
    "ages": ("(n, length) int64", "time from each item to the newest, in the Dataset's unit; −1 without times"),
    "repeated": ("(n, r) int64", "distinct items of each history, ascending, 0 behind the last; r is 2 or more"),
    "features": ("(n, r, 8) float32", "count, ago, age, fast, slow, time_ago, time_age, steps; 1 behind the last"),
}

_SEGUE = """\
## With segue, without torch

```bash
pip install --no-deps segue && pip install numpy onnxruntime
```

```python
import segue

recommender = segue.OnnxRecommender("{folder}")
history = recommender.items.ids[:2]
print(recommender.recommend([history], k=10))
```
"""

_PYTHON = """\
## In Python, with numpy and onnxruntime alone

```python
import json
import numpy as np
import onnxruntime

encoder = onnxruntime.InferenceSession("{folder}/encoder.onnx")
table = np.load("{folder}/items.npy")
ids = json.load(open("{folder}/item_ids.json", encoding="utf-8"))
code_of = {{item: code for code, item in enumerate(ids, 1)}}

history = ids[:2]  # oldest first
codes = [code_of[item] for item in history][-{max_length}:]
padded = np.array([codes + [0] * ({shortest} - len(codes))])
inputs = {{"items": padded, "lengths": np.array([len(codes)])}}
{more}query = encoder.run(None, inputs)[0]
scores = table @ query[0, : table.shape[1]]{plus}
{added}scores[[0, *codes, *np.load("{folder}/cold.npy")]] = -np.inf
for code in np.argsort(-scores, kind="stable")[:10]:
    print(ids[code - 1], scores[code])
```
"""

_ADDED = """\
names = "offsets", "followers", "counts"
offsets, followers, counts = (np.load(f"{folder}/transitions_{{name}}.npy") for name in names)
added = np.zeros(len(table))
for step, code in enumerate(codes[:-4:-1]):  # the three newest items, newest first
    row = slice(offsets[code], offsets[code + 1])
    added[followers[row]] += 0.5**step * counts[row]
scores = scores + {weight} * np.log1p(added)
"""

_ADDED_JAVASCRIPT = """\
  const array = (name, kind) => {{
    const file = readFileSync(`{folder}/transitions_${{name}}.npy`);
    return new kind(new Uint8Array(file.subarray(10 + file.readUInt16LE(8))).buffer);
  }};
  const offsets = array("offsets", BigInt64Array), added = new Float64Array(ids.length + 1);
  const followers = array("followers", Int32Array), counts = array("counts", Float32Array);
  codes.slice(-3).reverse().forEach((code, step) => {{
    for (let place = Number(offsets[code]); place < Number(offsets[code + 1]); place++)
      added[followers[place]] += 0.5 ** step * counts[place];
  }});
"""

_JAVASCRIPT = """\
## In JavaScript

`npm install onnxruntime-node`, or `onnxruntime-web` in a browser, with `fetch` in place of `readFileSync`.

```javascript
const {{ readFileSync }} = require("fs");
const ort = require("onnxruntime-node");

async function recommend(history, k) {{
  const ids = JSON.parse(readFileSync("{folder}/item_ids.json", "utf8"));
  const codeOf = new Map(ids.map((id, position) => [id, position + 1]));
  const file = readFileSync("{folder}/items.npy");
  const table = new Float32Array(new Uint8Array(file.subarray(10 + file.readUInt16LE(8))).buffer);
  const encoder = await ort.InferenceSession.create("{folder}/encoder.onnx");
  const codes = history.map((id) => codeOf.get(id)).slice(-{max_length});
  const padded = [...codes, ...Array(Math.max(0, {shortest} - codes.length)).fill(0)];
  const int64 = (numbers, shape) => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), shape);
  const inputs = {{ items: int64(padded, [1, padded.length]), lengths: int64([codes.length], [1]) }};
{more_javascript}  const query = (await encoder.run(inputs)).queries.data;
  const width = table.length / (ids.length + 1), seen = new Set(codes);
{added_javascript}  const scores = ids.map((id, position) => {{
    let score = {start};
    for (let column = 0; column < width; column++) score += query[column] * table[(position + 1) * width + column];
{plus_javascript}    return {{ item: id, score }};
  }});
  return scores.filter((row, position) => !seen.has(position + 1)).sort((a, b) => b.score - a.score).slice(0, k);
}}

const ids = JSON.parse(readFileSync("{folder}/item_ids.json", "utf8"));
recommend(ids.slice(0, 2), 10).then(console.log);
```
"""

_TRANSITIONS = """\
- Add w · log(1 + c) to the score of each item that followed the newest ones, with w = {transitions_weight}. c is a sum
  over the three newest items, each weighing half as much as the one after it: the items behind item code a are
  `followers[offsets[a] : offsets[a + 1]]`, and `counts` has their counts.
"""
_REPEATS = """\
- Pairs of an item code and a number stand behind these columns. Add the number to the score of the item; code 0 is no
  item.
- The features of repeats need a page of code, so use segue's reader (below), or read `segue/data/history_arrays.py`.
"""


def readme_of(description: Mapping[str, Any], folder: str = ".") -> str:
    """Text of the README for the content of `onnx.json`; the programs run in `folder`."""
    inputs = description["inputs"]
    values: dict[str, Any] = {
        **description,
        "folder": folder,
        "rows": description["items"] + 1,
        "shortest": min(2, description["max_length"]),
        "users": "| `user_ids.json` | id of the user with code 1, 2, 3, … |\n" if "users" in inputs else "",
        "index": "| `index/` | graph for approximate search (usearch) |\n" if description["indexed"] else "",
        "inputs": "".join(f"| `{name}` | {_MEANINGS[name][0]} | {_MEANINGS[name][1]} |\n" for name in inputs),
        "offset": ", plus the next column" if description["offset"] else "",
        "repeats": _REPEATS if description["repeats"] else "",
        "transitions": "",
        "plus": " + query[0, table.shape[1]]" if description["offset"] else "",
        "start": "query[width]" if description["offset"] else "0",
        "added": "",
        "added_javascript": "",
        "plus_javascript": "",
        "more": "",
        "more_javascript": "",
    }
    if "users" in inputs:
        values["more"] += 'inputs["users"] = np.array([0])  # an unknown user\n'
        values["more_javascript"] += "  inputs.users = int64([0], [1]); // an unknown user\n"
    if "ages" in inputs:
        values["more"] += 'inputs["ages"] = np.full_like(padded, -1)  # unknown times\n'
        values["more_javascript"] += (
            "  inputs.ages = int64(padded.map(() => -1), [1, padded.length]); // unknown times\n"
        )
    weight = description.get("transitions")
    if weight is not None:
        values["transitions"] = (
            "| `transitions_offsets.npy`, `…_followers.npy`, `…_counts.npy` | items that followed each item |\n"
        )
        values["repeats"] = _TRANSITIONS.format(transitions_weight=weight)
        values["added"] = _ADDED.format(folder=folder, weight=weight)
        values["added_javascript"] = _ADDED_JAVASCRIPT.format(folder=folder)
        values["plus_javascript"] = f"    score += {weight} * Math.log1p(added[position + 1]);\n"
    parts = [_FILES, _SEGUE] if description["repeats"] else [_FILES, _SEGUE, _PYTHON, _JAVASCRIPT]
    return "\n".join(part.format(**values) for part in parts)
