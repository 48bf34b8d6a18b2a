#!/bin/bash
# check.sh kernel.cu args
cd /work/wt/transform/kernels/cuda/transform
mkdir -p /tmp/tr; cp common.cuh ../common.cuh /tmp/tr/ 2>/dev/null
f=$1; shift
cat rows.cuh quantise.cuh tensor_cores.cuh $f > /tmp/tr/$f
/work/wt/nvrtc/bin/python /work/wt/nvrtc_check.py /tmp/tr/$f "$@"
