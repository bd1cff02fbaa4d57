# Holdfast as a container: the resolver beside your apps, sharing their network namespace.
#
#   docker build -t holdfast .
#   docker run --rm --network container:APP --cap-add NET_ADMIN -v holdfast-state:/var/lib/holdfast holdfast
#
# The kernel is the host's: it must have ESP (modules esp4, esp6). The first stage compiles the native addon.

FROM node:20-bookworm-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev linux-libc-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/holdfast
COPY package.json package-lock.json .npmrc ./
COPY deploy ./deploy
COPY kernel/native ./kernel/native
# Node 24 itself comes from the lock file, as everywhere else.
RUN npm ci --omit=dev
COPY ike ./ike
COPY kernel ./kernel
COPY resolver ./resolver
COPY LICENSE README.md ./
# The sources are compiled now that they are here.
RUN node deploy/install.mjs

FROM debian:bookworm-slim
COPY --from=build /opt/holdfast /opt/holdfast
RUN ln -s /opt/holdfast/deploy/holdfast /usr/local/bin/holdfast \
 && mkdir -p /var/lib/holdfast /etc/holdfast
VOLUME /var/lib/holdfast
EXPOSE 53/udp 53/tcp 500/udp 4500/udp
ENTRYPOINT ["holdfast"]
CMD ["up"]
