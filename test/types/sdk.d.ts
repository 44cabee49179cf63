/** What @moddable/typings 5.6.0 lacks of the SDK 8 that hosts/esp32 and the examples use; the SDK itself has it. */

declare module "embedded:network/interface/wifi" {
  class WiFi {
    constructor(options: { onChanged?: (property: "connection" | "address") => void });
    close(): void;
    connect(options: { SSID: string; password?: string }): void;
    readonly connection: number;
  }
  export default WiFi;
}
