/**
 * Does what is due (first enrolment, or renewal after two thirds of the lifetime) and sleeps until something is due
 * again: the radio is on a few seconds in months. hosts/esp32/main.ts is the same with back-off and a line for programs.
 *
 *     npm run moddable -- -d -m -p esp32 server=coaps://est.example.net ssid=… password=… examples/renew-and-sleep/manifest.json
 */

import { parseURI, statusOf, wake } from "torpor";
import { openDevice } from "torpor/device";

const DAY = 86_400;
const device = openDevice();

/** Seconds until something is due. */
function untilDue(): number {
  const { at, now } = statusOf(device.store, device.clock);
  return Math.max(0, at - now);
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
