/**
 * Makes a key, enrols it with the factory identity (simple enrolment, RFC 9148 section 4.3), and prints what came of it.
 * The key and its certificate are kept together, or neither is.
 *
 *     npm run moddable -- -d -m -p esp32 server=coaps://est.example.net ssid=… password=… examples/enrol/manifest.json
 */

import { distinguishedName, IdentityStore, parseCertificate, parseURI, wake } from "torpor";
import { openDevice } from "torpor/device";

const device = openDevice();

async function enrol(): Promise<string> {
  const { trust, identity } = device.factory();
  const { host, port } = parseURI(device.config.server ?? "");
  await device.connect();
  await wake(device, {
    operation: "sen",
    address: await device.resolve(host),
    host,
    port,
    trust,
    factory: identity,
    geometry: { slots: 4, slotBytes: 512 },
    blockSize: 512,
  });
  const { subject, notAfter } = parseCertificate(new IdentityStore(device.store).current!.certificates[0]!);
  return `enrolled as ${distinguishedName(subject)}, until ${new Date(notAfter * 1000).toISOString()}`;
}

enrol().then(
  (line) => {
    device.log(line);
    device.sleep(86_400, "done");
  },
  (error: Error) => {
    device.log(error.message);
    device.sleep(60, "failed");
  },
);
