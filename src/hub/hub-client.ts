/** Talking to a hub: one `fetch` that adds the token where it belongs and turns refusals into messages that say what to do. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, ConfigError, InterruptedError } from "../errors.js";
import { type Environment, hubHome, type RepoType } from "./hub-cache.js";

/** What is asked for. */
export interface Repo {
  type: RepoType;
  /** "org/name" */
  id: string;
}

/** The network could not be reached: what is in the cache may be used instead. */
export class UnreachableError extends CheckpointError {}

/** A hub that answers requests. */
export class HubClient {
  /** Without a slash at its end. */
  readonly endpoint: string;
  readonly #token: string | undefined;
  readonly #signal: AbortSignal | undefined;

  constructor(endpoint: string, token: string | undefined, signal: AbortSignal | undefined) {
    this.endpoint = endpoint;
    this.#token = token;
    this.#signal = signal;
  }

  /** A client from HF_ENDPOINT and HF_TOKEN, or the token that `hf auth login` saved. */
  static async create(token?: string, signal?: AbortSignal, env: Environment = process.env): Promise<HubClient> {
    const endpoint = (env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
    if (!/^https?:\/\/[^/]/.test(endpoint))
      throw new ConfigError(`HF_ENDPOINT is ${JSON.stringify(endpoint)}: expected an http or https address.`);
    const saved = () => readFile(env.HF_TOKEN_PATH || join(hubHome(env), "token"), "utf8").catch(() => "");
    const found = (token || env.HF_TOKEN || (await saved())).trim();
    return new HubClient(endpoint, found === "" ? undefined : found, signal);
  }

  /** The address of a repository's page, or of a file of one of its commits. */
  url(repo: Repo, file?: { commit: string; path: string }): string {
    const page = `${this.endpoint}/${repo.type === "dataset" ? "datasets/" : ""}${repo.id}`;
    if (file === undefined) return page;
    return `${page}/resolve/${file.commit}/${file.path.split("/").map(encodeURIComponent).join("/")}`;
  }

  /**
   * `fetch` for one repository. The token goes to the hub alone, never to an address that an answer names.
   *
   * @throws CheckpointError saying what to do when the answer is a refusal; UnreachableError when there is none
   */
  fetchFor(repo: Repo): typeof fetch {
    return async (input, init) => {
      const address = new URL(input instanceof Request ? input.url : input);
      const headers = new Headers(init?.headers);
      if (this.#token !== undefined && address.origin === new URL(this.endpoint).origin)
        headers.set("Authorization", `Bearer ${this.#token}`);
      let response: Response;
      try {
        response = await fetch(address, { ...init, headers, signal: this.#signal ?? null });
      } catch (cause) {
        if (this.#signal?.aborted) throw interrupted(repo, cause);
        throw unreachable(this.endpoint, repo, cause);
      }
      if (response.ok) return response;
      await response.body?.cancel();
      throw this.#refusal(repo, response);
    };
  }

  #refusal(repo: Repo, { status, headers, url }: Response): Error {
    const code = headers.get("X-Error-Code");
    const page = this.url(repo);
    const tokens = `${this.endpoint}/settings/tokens`;
    const give = "set HF_TOKEN, or pass { token }";
    if (code === "GatedRepo")
      return new CheckpointError(
        this.#token === undefined
          ? `${repo.id} is gated: its owner asks for conditions to be accepted. Sign in at ${page}, accept them there, make a token at ${tokens}, and ${give}.`
          : `${repo.id} is gated, and the account of this token may not read it yet. Sign in at ${page} with that account and accept the conditions there (some owners take time to approve); the token needs leave to read gated repositories (${tokens}).`,
      );
    if (code === "RevisionNotFound")
      return new CheckpointError(`${repo.id} has no such revision. See ${page} for its branches and tags.`);
    if (code === "EntryNotFound") return new CheckpointError(`${repo.id} has no file at ${url}.`);
    if (code === "RepoNotFound" || status === 401 || status === 403 || status === 404)
      return new CheckpointError(
        `${repo.id} is not a ${repo.type} that can be read at ${this.endpoint} (status ${status}). Check the name; if it is private, ${give} of an account that may read it.`,
      );
    const message = `${this.endpoint} answered with status ${status} for ${repo.id}.`;
    if (status === 429 || status >= 500) return new UnreachableError(`${message} Try again later.`);
    return new CheckpointError(message);
  }
}

/** The error of a download that its user stopped. */
export function interrupted(repo: Repo, cause: unknown): InterruptedError {
  return new InterruptedError(
    `Fetching ${repo.id} was interrupted. What came is kept: the next call goes on from there.`,
    { cause },
  );
}

/** The error of a connection that failed, with the system's word for it. */
export function unreachable(endpoint: string, repo: Repo, cause: unknown): UnreachableError {
  const { code } = ((cause as Error).cause ?? cause) as NodeJS.ErrnoException;
  const why = code ?? (cause as Error).message;
  return new UnreachableError(
    `${endpoint} cannot be reached for ${repo.id} (${why}). Check the network; HF_ENDPOINT names another hub, and a path of your own needs none.`,
    { cause },
  );
}
