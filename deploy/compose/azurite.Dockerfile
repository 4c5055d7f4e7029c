# Azurite, Microsoft's emulator of Azure Blob Storage, at the version that the tests run against.
FROM node:22-slim
WORKDIR /opt/azurite
COPY tools/azurite/package.json tools/azurite/package-lock.json ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund \
    && npm cache clean --force \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
VOLUME ["/data"]
USER 10001:10001
EXPOSE 10000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["node", "-e", "require('net').connect(10000, '127.0.0.1').on('error', () => process.exit(1)).on('connect', () => process.exit(0))"]
CMD ["node", "node_modules/azurite/dist/src/blob/main.js", "--blobHost", "0.0.0.0", "--blobPort", "10000", "--location", "/data", "--disableTelemetry", "--skipApiVersionCheck", "--silent"]
