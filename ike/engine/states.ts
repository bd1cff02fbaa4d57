/**
 * The state table of an IKE SA: role → state → event → next state. A missing entry is the error.
 *
 * A peer's message whose event has no entry is dropped and counted; a missing entry on our own account is a bug and
 * throws. Nothing else decides what may follow what.
 */

export type Role = 'initiator' | 'responder';

export type State =
  /** Initiator: IKE_SA_INIT request is out. */
  | 'init-sent'
  /** Initiator: IKE_SA_INIT answered, keys there; waiting to be told whom to expect. */
  | 'init-done'
  /** Initiator: IKE_AUTH request is out. */
  | 'auth-sent'
  /** Initiator: given up while IKE_AUTH is out; an answer will be met with DELETE. */
  | 'cancelling'
  /** Initiator: AUTH is proven, but under another name; its keys are being looked up. */
  | 'verifying'
  /** Responder: IKE_SA_INIT answered, nobody authenticated: half-open. */
  | 'init-answered'
  /** Responder: IKE_AUTH is here, the peer's keys are being looked up: half-open. */
  | 'lookup'
  /** The peer is authenticated; its Child SA is on the way into the kernel. */
  | 'installing'
  | 'established'
  /** Replaced by a new IKE SA; waits for the peer to delete it (RFC 7296 §2.8). */
  | 'rekeyed'
  /** Our DELETE is out. */
  | 'deleting'
  /** Over; stays a little to repeat its last answer. */
  | 'lingering'
  | 'closed';

export type Event =
  | 'cookie'
  | 'invalidKe'
  | 'initAnswer'
  | 'authenticate'
  | 'authAnswer'
  | 'authRefused'
  | 'authWrong'
  | 'otherName'
  | 'authRequest'
  | 'verified'
  | 'verifiedChildless'
  | 'refused'
  | 'installed'
  | 'installFailed'
  | 'request'
  | 'answer'
  | 'rekey'
  | 'replaced'
  | 'close'
  | 'cancel'
  | 'peerDelete'
  | 'deleteAnswer'
  | 'timeout'
  | 'expire';

type Row = { readonly [event in Event]?: State };
type Table = { readonly [state in State]?: Row };

/** What an SA can do once its peer is authenticated is the same for both roles. */
const common: Table = {
  established: {
    request: 'established',
    answer: 'established',
    rekey: 'rekeyed',
    replaced: 'closed',
    close: 'deleting',
    peerDelete: 'lingering',
    timeout: 'closed',
    expire: 'deleting',
  },
  rekeyed: {
    request: 'rekeyed',
    answer: 'rekeyed',
    close: 'deleting',
    peerDelete: 'lingering',
    timeout: 'closed',
    expire: 'deleting',
  },
  deleting: {
    request: 'deleting',
    answer: 'deleting',
    deleteAnswer: 'closed',
    peerDelete: 'lingering',
    timeout: 'closed',
  },
  lingering: { expire: 'closed' },
};

export const transitions: { readonly [role in Role]: Table } = {
  initiator: {
    'init-sent': {
      cookie: 'init-sent',
      invalidKe: 'init-sent',
      initAnswer: 'init-done',
      cancel: 'closed',
      timeout: 'closed',
    },
    'init-done': { authenticate: 'auth-sent', cancel: 'closed', expire: 'closed' },
    'auth-sent': {
      authAnswer: 'installing',
      otherName: 'verifying',
      authRefused: 'closed',
      authWrong: 'deleting',
      cancel: 'cancelling',
      timeout: 'closed',
    },
    verifying: { authAnswer: 'installing', authWrong: 'deleting', cancel: 'deleting', expire: 'deleting' },
    cancelling: { authRefused: 'closed', authWrong: 'deleting', timeout: 'closed' },
    installing: {
      installed: 'established',
      installFailed: 'deleting',
      cancel: 'deleting',
      close: 'deleting',
    },
    ...common,
  },
  responder: {
    'init-answered': { authRequest: 'lookup', expire: 'closed' },
    lookup: {
      verified: 'installing',
      verifiedChildless: 'established',
      refused: 'lingering',
      expire: 'closed',
    },
    installing: {
      installed: 'established',
      installFailed: 'established',
      close: 'closed',
      expire: 'closed',
    },
    ...common,
  },
};

export function permits(sa: { role: Role; state: State }, event: Event): boolean {
  return transitions[sa.role][sa.state]?.[event] !== undefined;
}

/** Move to the next state; a move that the table does not know is our own bug. */
export function advance(sa: { role: Role; state: State }, event: Event): void {
  const next = transitions[sa.role][sa.state]?.[event];
  if (next === undefined) throw new Error(`no transition: ${sa.role} ${sa.state} ${event}`);
  sa.state = next;
}
