# x86-64 and arm64 CPUs; ONNX Runtime.
# docker build -f docker/desktop-cpu.Dockerfile -t edgecls:desktop-cpu .
FROM python:3.12.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/edgecls \
    && /opt/edgecls/bin/pip install --no-cache-dir -c constraints.txt ".[serve,onnxruntime]"

FROM python:3.12.12-slim-bookworm
COPY --from=build /opt/edgecls /opt/edgecls
# No home: nothing is written but, where a backend needs it, the cache.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp EDGECLS_CACHE=/tmp/edgecls
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/edgecls/bin/python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/edgecls/bin/edgecls", "serve", "/bundles/desktop-cpu", "--host", "0.0.0.0", "--port", "8000"]
