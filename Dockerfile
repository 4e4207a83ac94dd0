# Speak, train and serve in a container. The default runs on the CPU; a build argument chooses PyTorch for CUDA:
#
#   docker build -t vits2 .
#   docker build -t vits2-cuda --build-arg TORCH=https://pypi.org/simple .
#   docker run --rm -p 127.0.0.1:7860:7860 -v "$PWD/logs:/work/logs" vits2
#   docker run --rm --gpus all --shm-size 2g -v "$PWD:/work" vits2-cuda vits2-train -c my.json -m my
#
# Training needs --shm-size, because its processes exchange batches through shared memory, of which Docker grants 64 MB.

FROM python:3.12-slim

# The compiler builds the alignment search, which training uses.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Packages change less often than the code, so that they are a layer of their own.
WORKDIR /src
COPY requirements.txt requirements-extras.txt requirements.lock ./
RUN pip install --extra-index-url "$TORCH" -r requirements.txt -r requirements-extras.txt -c requirements.lock

COPY . .
RUN pip install --no-deps . \
    && python "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vits2/monotonic_align/setup.py" \
        build_ext --inplace \
    && useradd --create-home --uid 1000 vits2

USER 1000
WORKDIR /work
EXPOSE 7860
HEALTHCHECK --interval=30s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health')"]
CMD ["vits2-serve", "--host", "0.0.0.0"]
