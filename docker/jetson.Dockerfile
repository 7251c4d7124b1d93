# Jetson with JetPack 6.1 or 6.2; TensorRT 10.3 of the base image. Build it on the device.
# docker build -f docker/jetson.Dockerfile -t edgecls:jetson .
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0 AS build
# Ubuntu keeps only the latest version of a package: a pin would break the build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# TensorRT's bindings are the system Python's.
RUN python3 -m venv --system-site-packages /opt/edgecls \
    && /opt/edgecls/bin/pip install --no-cache-dir -c constraints.txt ".[serve,tensorrt]"

FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
COPY --from=build /opt/edgecls /opt/edgecls
# The engine is built at the first start and kept in this volume.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp EDGECLS_CACHE=/cache
RUN install -d -o 10001 -g 10001 /cache
VOLUME /cache
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=15m --retries=3 \
    CMD ["/opt/edgecls/bin/python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/edgecls/bin/edgecls", "serve", "/bundles/jetson", "--host", "0.0.0.0", "--port", "8000"]
