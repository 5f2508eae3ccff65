# syntax=docker/dockerfile:1
# Allim without its embedded PostgreSQL: it wants DATABASE_URL. See docs/how-to/deploy.md.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/allim
# Dependencies by themselves, so that a change of ours does not fetch them anew.
COPY requirements.lock ./
COPY deploy/image ./deploy/image
RUN python deploy/image/locked.py deploy/image/run.txt > /tmp/run.txt \
 && python deploy/image/locked.py deploy/image/build.txt > /tmp/build.txt \
 && pip --python /opt/allim/bin/python install --no-cache-dir --disable-pip-version-check \
      --require-hashes --no-deps --only-binary=:all: -r /tmp/run.txt \
 && python deploy/image/locked.py deploy/image/source.txt > /tmp/source.txt \
 && pip wheel --no-cache-dir --disable-pip-version-check --require-hashes \
      --no-deps --no-build-isolation --wheel-dir /tmp/wheels -r /tmp/source.txt \
 && pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
      --require-hashes --no-deps --only-binary=:all: -r /tmp/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-cache-dir --disable-pip-version-check \
      --no-deps --no-build-isolation --wheel-dir /tmp/wheels . \
 && pip --python /opt/allim/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps /tmp/wheels/*.whl \
 && /opt/allim/bin/allim --version

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="Allim" \
      org.opencontainers.image.licenses="Apache-2.0"
# Nothing is installed in a container that runs, so nothing that installs is there.
RUN pip uninstall --yes --quiet --root-user-action=ignore setuptools wheel pip \
 && groupadd --system --gid 10001 allim \
 && useradd --system --uid 10001 --gid allim --home-dir /nonexistent --no-create-home \
      --shell /usr/sbin/nologin allim
COPY --from=build /opt/allim /opt/allim
COPY --chmod=0444 deploy/image/health.py /opt/allim/health.py
# All of these may be said otherwise at the start. Outside of the container only those come in
# whom its network lets in; the API asks for a key besides, and does not start without one.
ENV PATH=/opt/allim/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ALLIM_HOST=0.0.0.0 \
    ALLIM_LOG_FORMAT=json \
    ALLIM_RELAY_METRICS_HOST=0.0.0.0 \
    ALLIM_RELAY_METRICS_PORT=18081
# Writes nothing: may run with a read-only root file system.
USER 10001:10001
WORKDIR /opt/allim
EXPOSE 18080 18081
# SIGTERM ends it gracefully: give it more than ALLIM_SHUTDOWN_SECONDS (20).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=20s --retries=3 \
    CMD ["python", "/opt/allim/health.py"]
ENTRYPOINT ["allim"]
CMD ["up"]
