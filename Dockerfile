# docker build -t mvllm-router .
# docker run --rm -p 8888:8888 mvllm-router run --demo

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY mvllm_router mvllm_router
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/mvllm-router \
    && /opt/mvllm-router/bin/pip install --no-cache-dir /wheels/*.whl \
    && /opt/mvllm-router/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN useradd --system --no-create-home router && mkdir /etc/mvllm-router
COPY --from=build /opt/mvllm-router /opt/mvllm-router
ENV PATH=/opt/mvllm-router/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ROUTER_HOST=0.0.0.0
# servers.toml is found in the working folder. ROUTER_CONFIG would name it as well, but then it would
# have to be there, also for `run --demo` and for servers on the command line.
WORKDIR /etc/mvllm-router
USER router
EXPOSE 8888
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["python", "-c", \
    "import os, ssl, urllib.request as u; e = os.environ.get; u.urlopen('http%s://127.0.0.1:%s/health' % ('s' if e('ROUTER_TLS_CERT') else '', e('ROUTER_PORT') or 8888), timeout=3, context=ssl._create_unverified_context())"]
ENTRYPOINT ["router"]
CMD ["run"]
