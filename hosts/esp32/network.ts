/**
 * Wi-Fi by the `ssid` and `password` of mc.config, and the time by SNTP (RFC 4330) where the clock is not trusted.
 *
 *     const isTimeSet = await connect(config, clock.time === undefined);
 */

import WiFi from "embedded:network/interface/wifi";
import SNTP from "sntp";
import Time from "time";
import Timer from "timer";
import type { DeviceConfig } from "torpor/hosts/moddable/device";
import { TorporError } from "torpor/src/errors";

interface NetworkConfig extends DeviceConfig {
  readonly ssid?: string;
  readonly password?: string;
  /** Host name of the time server; empty: none is asked, and validity times are not checked. */
  readonly sntp?: string;
}

/** Milliseconds; the app's patience bounds both together with all else. */
const WIFI_PATIENCE = 20_000;
const SNTP_PATIENCE = 8_000;

/** `connection` of the SDK's interface from which on there is an address. */
const CONNECTED = 500;

/** Resolves with whether the clock was set. Rejects where there is no Wi-Fi; without the time a wake goes on. */
export async function connect(config: NetworkConfig, wantsTime: boolean): Promise<boolean> {
  const { ssid, password, sntp } = config;
  if (!ssid) {
    throw new TorporError("no Wi-Fi: build the firmware with ssid=… and password=…");
  }
  await connectWiFi(ssid, password);
  return wantsTime && sntp ? setTime(sntp) : false;
}

function connectWiFi(ssid: string, password: string | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const wifi = new WiFi({
      onChanged() {
        if (wifi.connection >= CONNECTED) {
          Timer.clear(late);
          wifi.close();
          resolve();
        }
      },
    });
    const late = Timer.set(() => {
      wifi.close();
      reject(new TorporError(`no Wi-Fi: "${ssid}" gave no address within ${WIFI_PATIENCE / 1000} s`));
    }, WIFI_PATIENCE);
    wifi.connect(password ? { SSID: ssid, password } : { SSID: ssid });
  });
}

function setTime(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const sntp = new SNTP({ host }, (message, value) => {
      if (message === SNTP.retry) {
        return;
      }
      Timer.clear(late);
      if (message === SNTP.time) {
        Time.set(value!);
      }
      resolve(message === SNTP.time);
    });
    const late = Timer.set(() => {
      (sntp as SNTP & { close(): void }).close();
      resolve(false);
    }, SNTP_PATIENCE);
  });
}
