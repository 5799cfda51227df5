# SPDX-License-Identifier: Apache-2.0
#
# The agent's image: runs as any non-root user on a read-only root, as process 1, and starts no shell.
#
#   docker build -t keyferry-agent:0.1.0 .                                     every provider
#   docker build --build-arg PROVIDERS=vault -t keyferry-agent:0.1.0-vault .   one: all | vault | aws | gcp | core
#
# BASE_IMAGE is what the agent runs on: Python 3.11 or newer, and nothing else is needed, no shell either. Where it lacks
# pip and a shell, BUILD_IMAGE is one with both and with the same Python in the same place. A tag brings the base's fixes
# with each build; a release names the digest that it was tested with: name:tag@sha256:... A package index of one's own
# comes as two build secrets, which stay nowhere: --secret id=pip_conf,src=pip.conf --secret id=ca_bundle,src=ca.pem
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG BUILD_IMAGE=${BASE_IMAGE}

FROM ${BUILD_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src

# pip and whatever else builds stays out of what is shipped.
RUN python3 -m venv /opt/tools && python3 -m venv --without-pip /opt/keyferry

COPY requirements/ requirements/
ARG PROVIDERS=all
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/run/secrets/ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; \
    if [ "$PROVIDERS" = all ]; then agent=agent; else agent="agent-$PROVIDERS"; fi; \
    /opt/tools/bin/pip install --quiet --no-deps --require-hashes -r requirements/image.txt \
    && /opt/tools/bin/pip --python /opt/keyferry/bin/python install --quiet --no-compile --no-deps --require-hashes \
        -r "requirements/$agent.txt"

COPY LICENSE README.md pyproject.toml ./
COPY adapter/ adapter/
COPY agent/ agent/
RUN /opt/tools/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /wheels ./adapter . \
    && /opt/tools/bin/pip --python /opt/keyferry/bin/python install --quiet --no-compile --no-deps --no-index \
        --find-links /wheels keyferry-agent keyferry

# What no agent ever reads: the SDK's models of the services that keyferry does not call (sso and signin are logins),
# tests, and what compilers and type checkers want. Then the bill of materials, of what is left.
RUN site=$(/opt/keyferry/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && if [ -d "$site/botocore" ]; then \
        find "$site/botocore/data" -mindepth 1 -maxdepth 1 -type d ! -name kms ! -name secretsmanager ! -name sts \
            ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} + \
        && find "$site/botocore/data" -name 'examples-1.json*' -delete; \
    fi \
    && find "$site" -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -r {} + \
    && find "$site" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete \
    && mkdir -p /opt/keyferry/share/sbom \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
        --output-file /opt/keyferry/share/sbom/keyferry-agent.cdx.json /opt/keyferry/bin/python

# A read-only root can cache no bytecode, so it all comes with the image, and nobody checks it against its source.
RUN /opt/keyferry/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/keyferry/lib

FROM ${BASE_IMAGE}
# Bases come without the standard library's bytecode, or with it, and then this adds nothing. No shell: none may be there.
RUN ["python3", "-c", "import compileall, py_compile, re, sysconfig; compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2, rx=re.compile('site-packages|ensurepip|idlelib|lib2to3'), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"]
COPY --from=build /opt/keyferry /opt/keyferry
ENV PATH=/opt/keyferry/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1

ARG BASE_IMAGE
ARG PROVIDERS=all
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="keyferry-agent" \
      org.opencontainers.image.description="Carries an application's master key from a key store to the application" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      io.keyferry.providers="${PROVIDERS}"

# A number, so that runAsNonRoot can tell; it needs no entry in /etc/passwd.
USER 65532:65532
WORKDIR /
EXPOSE 8181
ENTRYPOINT ["keyferry-agent"]
CMD ["run"]
