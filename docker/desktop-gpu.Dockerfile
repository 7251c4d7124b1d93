# NVIDIA GPUs in a PC; TensorRT-RTX from its wheels, the driver from the host.
# docker build -f docker/desktop-gpu.Dockerfile -t edgecls:desktop-gpu .
FROM nvidia/cuda:12.9.1-base-ubuntu24.04 AS build
# Ubuntu keeps only the latest version of a package: a pin would break the build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/edgecls \
    && /opt/edgecls/bin/pip install --no-cache-dir -c constraints.txt ".[serve,tensorrt-rtx]"

FROM nvidia/cuda:12.9.1-base-ubuntu24.04
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 10001 -g 10001 /cache
COPY --from=build /opt/edgecls /opt/edgecls
# What TensorRT-RTX compiles for this GPU is kept in this volume.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp EDGECLS_CACHE=/cache
VOLUME /cache
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=5m --retries=3 \
    CMD ["/opt/edgecls/bin/python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/edgecls/bin/edgecls", "serve", "/bundles/desktop-gpu", "--host", "0.0.0.0", "--port", "8000"]
