import type { Kernel, KernelMessage, KernelSpec } from "@jupyterlab/services";
import { KERNEL_NAME } from "./install.js";
import { within } from "./protocol/client.js";
import type { Json } from "./protocol/message.js";
import type { Published, RunKernel } from "./run-kernel.js";

export interface ServerOptions {
  /** Address of a Jupyter server, as it prints it: a path below the host and a `token` in the query are understood. */
  url: string;
  token?: string;
  /** Name of the kernelspec on the server; default: the notebook's where the server has it, else `tunebook`. */
  kernel?: string;
  /** The folder on the server, below its root, that the kernel starts in. */
  folder?: string;
}

type Services = typeof import("@jupyterlab/services");

const ANSWER_MS = 60_000;
const SHUTDOWN_TRIES = 5;

/**
 * Starts a kernel on a Jupyter server.
 *
 * @param wanted - name of the notebook's own kernelspec
 * @throws Error that says whether the server, the token or the kernelspec is wrong.
 */
export async function serverKernel(options: ServerOptions, wanted?: string): Promise<RunKernel> {
  const { url, token } = address(options);
  // Some megabytes of modules that nobody else needs.
  const { ServerConnection, KernelSpecAPI, KernelAPI, KernelConnection } = await services();
  const serverSettings = ServerConnection.makeSettings({ baseUrl: url, token, appendToken: token !== "" });
  const specs = await asked(url, KernelSpecAPI.getSpecs(serverSettings));
  const name = choose(url, specs, options.kernel, wanted);
  const request = { name, path: options.folder ?? "" } as { name: string };
  const model = await asked(url, KernelAPI.startNew(request, serverSettings));
  const connection = new KernelConnection({ model, serverSettings, handleComms: false });
  // After a restart it connects anew by itself, and nobody there catches the failure if it is disposed meanwhile.
  const reconnect = connection.reconnect.bind(connection);
  connection.reconnect = () => reconnect().catch(() => {});
  const stop = async (): Promise<void> => {
    connection.dispose();
    // A server that is just restarting the kernel fails to end it.
    for (let tries = 1; ; tries++) {
      try {
        return await KernelAPI.shutdownKernel(model.id, serverSettings);
      } catch (error) {
        if (tries < SHUTDOWN_TRIES) await new Promise((resolve) => setTimeout(resolve, 1_000));
        else return console.error(`The kernel ${model.id} may still run on ${url}: ${(error as Error).message}`);
      }
    }
  };
  try {
    await within(connection.info, ANSWER_MS, `the kernel "${name}" of ${url}`);
  } catch (error) {
    await stop();
    throw error;
  }
  return adapt(connection, url, stop);
}

function adapt(connection: Kernel.IKernelConnection, url: string, stop: () => Promise<void>): RunKernel {
  let fail: (error: Error) => void = () => {};
  // A kernel that restarts has lost the notebook's variables, so the run is over.
  const lost = new Promise<never>((_, reject) => {
    fail = reject;
  });
  lost.catch(() => {});
  connection.statusChanged.connect((_, status) => {
    if (status === "dead" || status === "autorestarting" || status === "restarting") {
      fail(new Error(`The kernel on ${url} has ended (${status}).`));
    }
  });
  connection.connectionStatusChanged.connect((_, status) => {
    if (status === "disconnected") fail(new Error(`The connection to the kernel on ${url} was lost.`));
  });
  return {
    info: async () => (await connection.info) as unknown as Json,
    execute: async (code, { silent = false, onSent } = {}) => {
      const content = { code, silent, store_history: !silent, allow_stdin: false, stop_on_error: true };
      const future = connection.requestExecute(content);
      onSent?.(future.msg.header.msg_id);
      const reply = await Promise.race([future.done, lost]);
      return reply.content as unknown as Json;
    },
    listen: (listener) => {
      connection.iopubMessage.connect((_, { header, parent_header, content }: KernelMessage.IIOPubMessage) =>
        listener({ header, parent: parent_header, content } as unknown as Published),
      );
    },
    interrupt: async () => {
      await connection.interrupt().catch(() => {});
    },
    stop,
  };
}

async function services(): Promise<Services> {
  // It tells every connection there.
  console.debug = () => {};
  const loaded = (await import("@jupyterlab/services")) as Services & { default?: Services };
  return loaded.default ?? loaded;
}

/** Takes a printed address apart: `http://host:8888/base/lab?token=…`. */
function address({ url: given, token }: ServerOptions): { url: string; token: string } {
  if (!URL.canParse(given) || !/^https?:/.test(given)) {
    throw new Error(`--server ${given}: expected an address such as http://127.0.0.1:8888/.`);
  }
  const parsed = new URL(given);
  const query = parsed.searchParams.get("token") ?? "";
  const path = parsed.pathname.replace(/\/(?:lab|tree|notebooks|login)(?:\/.*)?$/, "/").replace(/\/?$/, "/");
  return { url: `${parsed.origin}${path}`, token: token ?? (query || (process.env.JUPYTER_TOKEN ?? "")) };
}

function choose(url: string, specs: KernelSpec.ISpecModels, named?: string, wanted?: string): string {
  const there = Object.keys(specs.kernelspecs);
  const fits = (name: string | undefined): name is string => name !== undefined && there.includes(name);
  if (named !== undefined) {
    if (fits(named)) return named;
    throw new Error(`${url} has no kernel "${named}"; it has ${there.join(", ") || "none"}.`);
  }
  // Another kernel for TypeScript (tslab's, Deno's) runs other cells than these.
  const own = fits(wanted) && /\btunebook\b/.test(specs.kernelspecs[wanted]?.display_name ?? "");
  if (own) return wanted;
  if (fits(KERNEL_NAME)) return KERNEL_NAME;
  throw new Error(
    `${url} has no kernel "${KERNEL_NAME}"; it has ${there.join(", ") || "none"}. Run \`tunebook install --sys-prefix\` in the server's environment, or name another by --kernel.`,
  );
}

async function asked<T>(url: string, request: Promise<T>): Promise<T> {
  try {
    return await within(request, ANSWER_MS, "the server");
  } catch (error) {
    const { response, message } = error as Error & { response?: Response };
    if (response?.status === 401 || response?.status === 403) {
      throw new Error(`${url} refuses the token. Give the server's own by --token or the variable JUPYTER_TOKEN.`);
    }
    if (response !== undefined) throw new Error(`${url} answers ${response.status}: ${message}`);
    throw new Error(`${url} cannot be reached: ${message}`);
  }
}
