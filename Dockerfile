# The image for Kubernetes (k8s/) and for `docker run`. No digest of the base is known here; to pin it:
#   docker buildx imagetools inspect python:3.11-slim-bookworm          # says it
#   docker build --build-arg PYTHON=python:3.11-slim-bookworm@sha256:... -t samba-coe:0.1.0 .
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
COPY requirements-image.lock ./
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --disable-pip-version-check -r requirements-image.lock
COPY pyproject.toml README.md ./
COPY node node
COPY cluster cluster
RUN /opt/venv/bin/pip install --disable-pip-version-check --no-deps .

FROM ${PYTHON}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp coe
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["coe"]
CMD ["--help"]
