/**
 * Gets the CA certificates of an EST server (RFC 9148 section 4.2, crts) and prints their names.
 *
 *     npm run moddable -- -d -m -p esp32 server=coaps://est.example.net ssid=… password=… examples/ca-certificates/manifest.json
 */

import { CoAPClient, distinguishedName, ESTClient, parseCertificate, parseURI } from "torpor";
import { network, openDevice } from "torpor/device";

async function main(): Promise<void> {
  const device = openDevice();
  const { trust, identity } = device.factory();
  if (trust === undefined || identity === undefined) {
    throw new Error("the device has no factory identity: see README, Provisioning");
  }
  const { host, port } = parseURI(device.config.server ?? "");
  await device.connect();
  const coap = new CoAPClient({
    ...network.coaps,
    socket: {
      ...network.dtls,
      address: await device.resolve(host),
      port,
      host,
      secure: { trustAnchors: trust, ...identity },
    },
  });
  const { certificates } = await new ESTClient({ coap }).caCertificates();
  for (const der of certificates) {
    device.log(distinguishedName(parseCertificate(der).subject));
  }
  coap.close();
  device.sleep(3600, "done");
}

main().catch((error: Error) => {
  const device = openDevice();
  device.log(error.message);
  device.sleep(60, "failed");
});
