/**
 * Uses the enrolled identity for another DTLS connection: a CoAP request to a server of the operator's own, whose
 * certificate leads to the same anchors. A SessionTable of its own would spare it the handshake after sleep.
 *
 *     npm run moddable -- -d -m -p esp32 peer=coaps://data.example.net/report ssid=… password=… examples/identity-elsewhere/manifest.json
 */

import { CoAPClient, codeText, IdentityStore, parseURI } from "torpor";
import { network, openDevice } from "torpor/device";

const device = openDevice();

async function report(): Promise<string> {
  const identities = new IdentityStore(device.store);
  const { current, trustAnchors } = identities;
  if (current === undefined || trustAnchors === undefined) {
    throw new Error("the device is not enrolled yet: run examples/enrol first");
  }
  const { peer } = device.config as { readonly peer?: string };
  const { host, port, path } = parseURI(peer ?? "");
  await device.connect();
  const coap = new CoAPClient({
    ...network.coaps,
    socket: { ...network.dtls, address: await device.resolve(host), port, host, secure: { trustAnchors, ...current } },
  });
  try {
    const { code, payload } = await coap.request({ method: "GET", path });
    return `${codeText(code)}, ${payload.length} bytes`;
  } finally {
    coap.close();
  }
}

report().then(
  (line) => {
    device.log(line);
    device.sleep(3600, "done");
  },
  (error: Error) => {
    device.log(error.message);
    device.sleep(60, "failed");
  },
);
