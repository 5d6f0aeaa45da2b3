# A clone with everything installed, for GPUs (default) or for CPUs:
#
#   docker build -t detector .
#   docker build -t detector:cpu --build-arg DEVICE=cpu .
#   docker run --rm --gpus all --ipc=host -v "$PWD/datasets:/app/datasets" -v "$PWD/runs:/app/runs" \
#       detector train --config configs/backbone.yaml --data.root datasets/mine/data.yaml
#
# PyTorch's wheels bring CUDA; the host needs NVIDIA's driver and its container toolkit. --ipc=host gives data loaders shared
# memory. Runs are written with the id 1000; for another user add --user "$(id -u):$(id -g)".
ARG PYTHON=3.13
FROM python:${PYTHON}-slim
ARG DEVICE=gpu

RUN useradd --uid 1000 --create-home detector
WORKDIR /app
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1 \
    HOME=/home/detector

# PyTorch first: its layer, the large one, stays when the code changes.
RUN case "$DEVICE" in \
      gpu) index=https://pypi.org/simple ;; \
      cpu) index=https://download.pytorch.org/whl/cpu ;; \
      *) echo "DEVICE is $DEVICE; expected gpu or cpu" >&2; exit 1 ;; \
    esac \
    && pip install --index-url "$index" "torch>=2.9" "torchvision>=0.24"

COPY . .
RUN pip install -e ".[export]" && mkdir -p datasets runs && chown detector datasets runs && chmod 777 /home/detector

USER detector
ENTRYPOINT ["detector"]
CMD ["--help"]
