#!/bin/sh
# Make an environment of `segue serve --engine onnx`, without torch, and print its size in MB.
#
#   deploy/onnx-environment.sh FOLDER [PYTHON]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
python=${2:-python3}
"$python" -m venv --without-pip "$folder"
pip="$python -m pip --python $folder/bin/python install --quiet --no-compile --no-deps"
$pip --constraint "$root/constraints.txt" --requirement "$root/deploy/requirements-onnx.txt"
$pip "$root"
packages=$("$folder/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
rm -rf "$packages"/numpy/tests "$packages"/numpy/*/tests
# Symbols for debuggers are a fifth of polars.
if command -v strip >/dev/null; then
    strip --strip-unneeded "$packages"/_polars_runtime_32/*.so
fi
"$folder/bin/python" -c "import segue.serving.server, segue.serving.onnx_served"
du -sm "$folder"
