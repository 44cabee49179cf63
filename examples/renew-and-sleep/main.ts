/**
 * Does what is due (first enrolment, or renewal after two thirds of the lifetime) and sleeps until something is due
 * again: the radio is on a few seconds in months. hosts/esp32/main.ts is the same with back-off and a line for programs.
 *
 *     npm run moddable -- -d -m -p esp32 server=coaps://est.example.net ssid=… password=… examples/renew-and-sleep/manifest.json
 */

import { IdentityStore, parseCertificate, parseURI, renewalTime, wake } from "torpor";
import { openDevice } from "torpor/device";

const DAY = 86_400;
const device = openDevice();

/** Seconds until the certificate is to be renewed; 0 without one, or without the time. */
function untilDue(): number {
  const { current } = new IdentityStore(device.store);
  if (current === undefined || device.clock.time === undefined) {
    return 0;
  }
  return Math.max(0, renewalTime(parseCertificate(current.certificates[0]!)) - device.clock.time / 1000);
}

async function renew(): Promise<void> {
  const { trust, identity } = device.factory();
  const { host, port } = parseURI(device.config.server ?? "");
  await device.connect();
  const { operations } = await wake(device, {
    operation: "run",
    address: await device.resolve(host),
    host,
    port,
    trust,
    factory: identity,
    geometry: { slots: 4, slotBytes: 512 },
    blockSize: 512,
  });
  device.log(operations.map(({ operation, code }) => `${operation} ${code}`).join(", "));
}

// Whatever happens below: asleep again in two minutes at most, and awake an hour later.
device.limit(120_000, 3600, "the wake hung");
(untilDue() > 0 ? Promise.resolve() : renew()).then(
  () => device.sleep(Math.min(30 * DAY, Math.ceil(untilDue()) || DAY), "done"),
  (error: Error) => {
    device.log(error.message);
    device.sleep(3600, "failed");
  },
);
