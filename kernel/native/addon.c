// Thin system calls for Holdfast: sockets whose options are set before bind, netlink, datagrams in batches with the
// local address of each, and readiness through libuv. All encoding and decoding is done in TypeScript.
//
// Every function returns a number: the result, or a negative errno. Only an argument of the wrong type throws.
// Descriptors opened here are remembered per environment, so that a worker that ends leaves none behind, and close()
// refuses (-EBADF) what it did not open or has closed already.

#define _GNU_SOURCE
#include <errno.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define BATCH_LIMIT 64

struct addon;

struct open_socket {
  int fd;
  bool has_poll;  // poll was initialised and has to go through uv_close
  uv_poll_t poll;
  napi_ref callback;
  napi_async_context context;
  struct addon *addon;
  struct open_socket *next;
};

struct addon {
  napi_env env;
  uv_loop_t *loop;
  struct open_socket *sockets;
  int closing;  // uv_close calls whose callback is still to come
  napi_async_cleanup_hook_handle cleanup;
  bool ending;
};

// One datagram's addresses as TypeScript sees them (kernel/native/binding.ts `RECORD`).
struct record {
  uint32_t length;     // of the payload
  uint32_t flags;      // received: MSG_TRUNC …; to send: 1 = `local` is to be the source address
  uint16_t family;     // 4 or 6
  uint16_t port;       // the remote port, host order
  uint32_t interface;  // where it came in
  uint8_t remote[16];
  uint8_t local[16];
  uint32_t scope;  // IPv6 scope of the remote address
  uint32_t reserved[3];
};
_Static_assert(sizeof(struct record) == 64, "binding.ts counts on 64 octets");

#define RECORD_HAS_LOCAL 1u

// ---- arguments and results ----

#define MAX_ARGUMENTS 6

static bool arguments(napi_env env, napi_callback_info info, size_t wanted, napi_value *values, struct addon **addon) {
  size_t count = MAX_ARGUMENTS;
  void *data = NULL;
  if (napi_get_cb_info(env, info, &count, values, NULL, &data) == napi_ok && count >= wanted) {
    if (addon) *addon = data;
    return true;
  }
  napi_throw_type_error(env, NULL, "too few arguments");
  return false;
}

static bool integer(napi_env env, napi_value value, int32_t *out) {
  if (napi_get_value_int32(env, value, out) == napi_ok) return true;
  napi_throw_type_error(env, NULL, "an integer was expected");
  return false;
}

static bool octets(napi_env env, napi_value value, uint8_t **data, size_t *length) {
  napi_typedarray_type type;
  void *at = NULL;
  if (napi_get_typedarray_info(env, value, &type, length, &at, NULL, NULL) == napi_ok && type == napi_uint8_array) {
    *data = at;
    return true;
  }
  napi_throw_type_error(env, NULL, "a Uint8Array was expected");
  return false;
}

static napi_value number(napi_env env, int64_t result) {
  napi_value value = NULL;
  napi_create_int64(env, result, &value);
  return value;
}

static napi_value outcome(napi_env env, int64_t result) { return number(env, result < 0 ? -errno : result); }

// ---- descriptors and their lives ----

static struct open_socket *find_socket(struct addon *addon, int fd) {
  struct open_socket *at = addon->sockets;
  while (at && at->fd != fd) at = at->next;
  return at;
}

static void free_socket(struct open_socket *socket) {
  napi_env env = socket->addon->env;
  if (socket->callback) napi_delete_reference(env, socket->callback);
  if (socket->context) napi_async_destroy(env, socket->context);
  free(socket);
}

static void end_cleanup_when_closed(struct addon *addon) {
  if (!addon->ending || addon->closing > 0 || !addon->cleanup) return;
  napi_async_cleanup_hook_handle handle = addon->cleanup;
  addon->cleanup = NULL;
  napi_remove_async_cleanup_hook(handle);
}

static void poll_closed(uv_handle_t *handle) {
  struct open_socket *socket = handle->data;
  struct addon *addon = socket->addon;
  napi_handle_scope scope;
  bool scoped = napi_open_handle_scope(addon->env, &scope) == napi_ok;
  free_socket(socket);
  if (scoped) napi_close_handle_scope(addon->env, scope);
  addon->closing--;
  end_cleanup_when_closed(addon);
}

static int close_socket(struct addon *addon, int fd) {
  struct open_socket **link = &addon->sockets;
  while (*link && (*link)->fd != fd) link = &(*link)->next;
  struct open_socket *socket = *link;
  if (!socket) return -EBADF;
  *link = socket->next;
  if (socket->has_poll) {
    addon->closing++;
    uv_close((uv_handle_t *)&socket->poll, poll_closed);  // takes the descriptor out of epoll at once
  }
  int result = close(fd) < 0 ? -errno : 0;
  if (!socket->has_poll) free_socket(socket);
  return result;
}

static void environment_ends(napi_async_cleanup_hook_handle handle, void *data) {
  struct addon *addon = data;
  addon->cleanup = handle;
  addon->ending = true;
  while (addon->sockets) close_socket(addon, addon->sockets->fd);
  end_cleanup_when_closed(addon);
}

static void free_addon(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  free(data);
}

// socket(domain, type, protocol) → fd; always non-blocking and closed on exec
static napi_value js_socket(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  struct addon *addon;
  int32_t domain, type, protocol;
  if (!arguments(env, info, 3, args, &addon) || !integer(env, args[0], &domain) || !integer(env, args[1], &type) ||
      !integer(env, args[2], &protocol))
    return NULL;
  int fd = socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  if (fd < 0) return number(env, -errno);
  struct open_socket *entry = calloc(1, sizeof *entry);
  if (!entry) {
    close(fd);
    return number(env, -ENOMEM);
  }
  entry->fd = fd;
  entry->addon = addon;
  entry->next = addon->sockets;
  addon->sockets = entry;
  return number(env, fd);
}

// close(fd) → 0
static napi_value js_close(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  struct addon *addon;
  int32_t fd;
  if (!arguments(env, info, 1, args, &addon) || !integer(env, args[0], &fd)) return NULL;
  return number(env, close_socket(addon, fd));
}

// release(fd) → 0; it is somebody else's to close from now on. Only before pollStart.
static napi_value js_release(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  struct addon *addon;
  int32_t fd;
  if (!arguments(env, info, 1, args, &addon) || !integer(env, args[0], &fd)) return NULL;
  struct open_socket **link = &addon->sockets;
  while (*link && (*link)->fd != fd) link = &(*link)->next;
  struct open_socket *socket = *link;
  if (!socket || socket->has_poll) return number(env, -EBADF);
  *link = socket->next;
  free_socket(socket);
  return number(env, 0);
}

// ---- readiness ----

static void socket_ready(uv_poll_t *poll, int status, int events) {
  (void)events;
  struct open_socket *socket = poll->data;
  napi_env env = socket->addon->env;
  // An error on the socket (ENOBUFS of an overrun netlink socket) sets EPOLLERR: libuv reports EBADF and stops the
  // handle. The socket is alive; reading it clears the error, so polling goes on.
  if (status < 0) uv_poll_start(poll, UV_READABLE, socket_ready);
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callback = NULL, global;
  napi_get_reference_value(env, socket->callback, &callback);
  napi_get_global(env, &global);
  if (callback && napi_make_callback(env, socket->context, global, callback, 0, NULL, NULL) == napi_pending_exception) {
    napi_value exception;
    if (napi_get_and_clear_last_exception(env, &exception) == napi_ok) napi_fatal_exception(env, exception);
  }
  napi_close_handle_scope(env, scope);
}

// pollStart(fd, callback) → 0; the callback has to read the socket, else it is called again at once
static napi_value js_poll_start(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  struct addon *addon;
  int32_t fd;
  napi_valuetype type;
  if (!arguments(env, info, 2, args, &addon) || !integer(env, args[0], &fd)) return NULL;
  if (napi_typeof(env, args[1], &type) != napi_ok || type != napi_function) {
    napi_throw_type_error(env, NULL, "a function was expected");
    return NULL;
  }
  struct open_socket *socket = find_socket(addon, fd);
  if (!socket) return number(env, -EBADF);
  if (!socket->has_poll) {
    napi_value name;
    int failed = uv_poll_init(addon->loop, &socket->poll, fd);
    if (failed) return number(env, failed);
    socket->poll.data = socket;
    socket->has_poll = true;
    napi_create_string_utf8(env, "holdfast:socket", NAPI_AUTO_LENGTH, &name);
    if (napi_async_init(env, NULL, name, &socket->context) != napi_ok) return number(env, -ENOMEM);
  }
  if (socket->callback) napi_delete_reference(env, socket->callback);
  socket->callback = NULL;
  if (napi_create_reference(env, args[1], 1, &socket->callback) != napi_ok) return number(env, -ENOMEM);
  return number(env, uv_poll_start(&socket->poll, UV_READABLE, socket_ready));
}

// pollStop(fd) → 0
static napi_value js_poll_stop(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  struct addon *addon;
  int32_t fd;
  if (!arguments(env, info, 1, args, &addon) || !integer(env, args[0], &fd)) return NULL;
  struct open_socket *socket = find_socket(addon, fd);
  if (!socket) return number(env, -EBADF);
  return number(env, socket->has_poll ? uv_poll_stop(&socket->poll) : 0);
}

// ---- options and addresses ----

// setsockopt(fd, level, name, integer | octets) → 0
static napi_value js_setsockopt(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  int32_t fd, level, name, value;
  if (!arguments(env, info, 4, args, NULL) || !integer(env, args[0], &fd) || !integer(env, args[1], &level) ||
      !integer(env, args[2], &name))
    return NULL;
  if (napi_get_value_int32(env, args[3], &value) == napi_ok)
    return outcome(env, setsockopt(fd, level, name, &value, sizeof value));
  uint8_t *data;
  size_t length;
  if (!octets(env, args[3], &data, &length)) return NULL;
  return outcome(env, setsockopt(fd, level, name, data, (socklen_t)length));
}

// getsockopt(fd, level, name, into) → octets written
static napi_value js_getsockopt(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  int32_t fd, level, name;
  uint8_t *data;
  size_t length;
  if (!arguments(env, info, 4, args, NULL) || !integer(env, args[0], &fd) || !integer(env, args[1], &level) ||
      !integer(env, args[2], &name) || !octets(env, args[3], &data, &length))
    return NULL;
  socklen_t size = (socklen_t)length;
  int result = getsockopt(fd, level, name, data, &size);
  return outcome(env, result < 0 ? result : (int64_t)size);
}

// bind(fd, sockaddr) → 0
static napi_value js_bind(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  int32_t fd;
  uint8_t *data;
  size_t length;
  if (!arguments(env, info, 2, args, NULL) || !integer(env, args[0], &fd) || !octets(env, args[1], &data, &length))
    return NULL;
  return outcome(env, bind(fd, (struct sockaddr *)data, (socklen_t)length));
}

// connect(fd, sockaddr) → 0
static napi_value js_connect(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  int32_t fd;
  uint8_t *data;
  size_t length;
  if (!arguments(env, info, 2, args, NULL) || !integer(env, args[0], &fd) || !octets(env, args[1], &data, &length))
    return NULL;
  return outcome(env, connect(fd, (struct sockaddr *)data, (socklen_t)length));
}

// getsockname(fd, into) → octets written
static napi_value js_getsockname(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  int32_t fd;
  uint8_t *data;
  size_t length;
  if (!arguments(env, info, 2, args, NULL) || !integer(env, args[0], &fd) || !octets(env, args[1], &data, &length))
    return NULL;
  socklen_t size = (socklen_t)length;
  int result = getsockname(fd, (struct sockaddr *)data, &size);
  return outcome(env, result < 0 ? result : (int64_t)size);
}

// ---- netlink ----

// send(fd, octets) → octets sent
static napi_value js_send(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  int32_t fd;
  uint8_t *data;
  size_t length;
  if (!arguments(env, info, 2, args, NULL) || !integer(env, args[0], &fd) || !octets(env, args[1], &data, &length))
    return NULL;
  return outcome(env, send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL));
}

// receiveNetlink(fd, into) → the datagram's length, also where `into` was too short for it; -EBADMSG when the sender was
// another process, not the kernel
static napi_value js_receive_netlink(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  int32_t fd;
  uint8_t *data;
  size_t length;
  if (!arguments(env, info, 2, args, NULL) || !integer(env, args[0], &fd) || !octets(env, args[1], &data, &length))
    return NULL;
  struct sockaddr_nl sender = {0};
  socklen_t size = sizeof sender;
  ssize_t got = recvfrom(fd, data, length, MSG_DONTWAIT | MSG_TRUNC, (struct sockaddr *)&sender, &size);
  if (got >= 0 && (size < sizeof sender || sender.nl_family != AF_NETLINK || sender.nl_pid != 0))
    return number(env, -EBADMSG);
  return outcome(env, got);
}

// ---- datagrams ----

union control {
  char octets[CMSG_SPACE(sizeof(struct in6_pktinfo))];
  struct cmsghdr align;
};

static void describe_received(struct record *record, struct msghdr *header, unsigned length) {
  memset(record, 0, sizeof *record);
  record->length = length;
  record->flags = (uint32_t)header->msg_flags;
  struct sockaddr_storage *from = header->msg_name;
  if (from->ss_family == AF_INET) {
    struct sockaddr_in *address = (struct sockaddr_in *)from;
    record->family = 4;
    record->port = ntohs(address->sin_port);
    memcpy(record->remote, &address->sin_addr, 4);
  } else if (from->ss_family == AF_INET6) {
    struct sockaddr_in6 *address = (struct sockaddr_in6 *)from;
    record->family = 6;
    record->port = ntohs(address->sin6_port);
    record->scope = address->sin6_scope_id;
    memcpy(record->remote, &address->sin6_addr, 16);
  }
  for (struct cmsghdr *at = CMSG_FIRSTHDR(header); at; at = CMSG_NXTHDR(header, at)) {
    if (at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_PKTINFO) {
      struct in_pktinfo packet;
      memcpy(&packet, CMSG_DATA(at), sizeof packet);
      record->interface = (uint32_t)packet.ipi_ifindex;
      memcpy(record->local, &packet.ipi_addr, 4);
    } else if (at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_PKTINFO) {
      struct in6_pktinfo packet;
      memcpy(&packet, CMSG_DATA(at), sizeof packet);
      record->interface = packet.ipi6_ifindex;
      memcpy(record->local, &packet.ipi6_addr, 16);
    }
  }
}

static void address_outgoing(const struct record *record, struct msghdr *header, union control *control) {
  struct sockaddr_storage *to = header->msg_name;
  struct cmsghdr *at = &control->align;
  memset(to, 0, sizeof *to);
  if (record->family == 4) {
    struct sockaddr_in *address = (struct sockaddr_in *)to;
    address->sin_family = AF_INET;
    address->sin_port = htons(record->port);
    memcpy(&address->sin_addr, record->remote, 4);
    header->msg_namelen = sizeof *address;
  } else {
    struct sockaddr_in6 *address = (struct sockaddr_in6 *)to;
    address->sin6_family = AF_INET6;
    address->sin6_port = htons(record->port);
    address->sin6_scope_id = record->scope;
    memcpy(&address->sin6_addr, record->remote, 16);
    header->msg_namelen = sizeof *address;
  }
  if (!(record->flags & RECORD_HAS_LOCAL)) return;
  memset(control, 0, sizeof *control);
  header->msg_control = control;
  if (record->family == 4) {
    struct in_pktinfo packet = {0};
    memcpy(&packet.ipi_spec_dst, record->local, 4);
    at->cmsg_level = IPPROTO_IP;
    at->cmsg_type = IP_PKTINFO;
    at->cmsg_len = CMSG_LEN(sizeof packet);
    memcpy(CMSG_DATA(at), &packet, sizeof packet);
    header->msg_controllen = CMSG_SPACE(sizeof packet);
  } else {
    struct in6_pktinfo packet = {0};
    memcpy(&packet.ipi6_addr, record->local, 16);
    packet.ipi6_ifindex = record->scope;
    at->cmsg_level = IPPROTO_IPV6;
    at->cmsg_type = IPV6_PKTINFO;
    at->cmsg_len = CMSG_LEN(sizeof packet);
    memcpy(CMSG_DATA(at), &packet, sizeof packet);
    header->msg_controllen = CMSG_SPACE(sizeof packet);
  }
}

// The payload of datagram i lies at i * slot, its record at i * 64; `count` is cut to what both buffers hold.
static int batch_size(int32_t count, int32_t slot, size_t payload, size_t records) {
  if (slot <= 0 || count <= 0) return 0;
  size_t fits = payload / (size_t)slot;
  if (records / sizeof(struct record) < fits) fits = records / sizeof(struct record);
  if (fits > BATCH_LIMIT) fits = BATCH_LIMIT;
  return (size_t)count < fits ? count : (int)fits;
}

// receiveMessages(fd, payload, slot, records) → datagrams received
static napi_value js_receive_messages(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  int32_t fd, slot;
  uint8_t *payload, *records;
  size_t payload_length, records_length;
  if (!arguments(env, info, 4, args, NULL) || !integer(env, args[0], &fd) ||
      !octets(env, args[1], &payload, &payload_length) || !integer(env, args[2], &slot) ||
      !octets(env, args[3], &records, &records_length))
    return NULL;
  int count = batch_size(BATCH_LIMIT, slot, payload_length, records_length);
  struct mmsghdr messages[BATCH_LIMIT];
  struct iovec vectors[BATCH_LIMIT];
  struct sockaddr_storage names[BATCH_LIMIT];
  union control controls[BATCH_LIMIT];
  if (count == 0) return number(env, -EINVAL);
  for (int i = 0; i < count; i++) {
    vectors[i] = (struct iovec){.iov_base = payload + (size_t)i * (size_t)slot, .iov_len = (size_t)slot};
    names[i].ss_family = AF_UNSPEC;
    messages[i] = (struct mmsghdr){.msg_hdr = {.msg_name = &names[i],
                                               .msg_namelen = sizeof names[i],
                                               .msg_iov = &vectors[i],
                                               .msg_iovlen = 1,
                                               .msg_control = &controls[i],
                                               .msg_controllen = sizeof controls[i]}};
  }
  int got = recvmmsg(fd, messages, (unsigned)count, MSG_DONTWAIT, NULL);
  for (int i = 0; i < got; i++) {
    struct record record;
    describe_received(&record, &messages[i].msg_hdr, messages[i].msg_len);
    memcpy(records + (size_t)i * sizeof record, &record, sizeof record);
  }
  return outcome(env, got);
}

// sendMessages(fd, payload, slot, records, first, count) → datagrams sent, beginning with number `first`
static napi_value js_send_messages(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGUMENTS];
  int32_t fd, slot, first, wanted;
  uint8_t *payload, *records;
  size_t payload_length, records_length;
  if (!arguments(env, info, 6, args, NULL) || !integer(env, args[0], &fd) ||
      !octets(env, args[1], &payload, &payload_length) || !integer(env, args[2], &slot) ||
      !octets(env, args[3], &records, &records_length) || !integer(env, args[4], &first) ||
      !integer(env, args[5], &wanted))
    return NULL;
  size_t skipped = first < 0 ? 0 : (size_t)first;
  if (slot <= 0 || skipped * (size_t)slot > payload_length || skipped * sizeof(struct record) > records_length)
    return number(env, -EINVAL);
  payload += skipped * (size_t)slot;
  records += skipped * sizeof(struct record);
  int count = batch_size(wanted, slot, payload_length - skipped * (size_t)slot,
                         records_length - skipped * sizeof(struct record));
  if (count == 0) return number(env, -EINVAL);
  struct mmsghdr messages[BATCH_LIMIT];
  struct iovec vectors[BATCH_LIMIT];
  struct sockaddr_storage names[BATCH_LIMIT];
  union control controls[BATCH_LIMIT];
  for (int i = 0; i < count; i++) {
    struct record record;
    memcpy(&record, records + (size_t)i * sizeof record, sizeof record);
    if (record.length > (uint32_t)slot) return number(env, -EMSGSIZE);
    vectors[i] = (struct iovec){.iov_base = payload + (size_t)i * (size_t)slot, .iov_len = record.length};
    messages[i] = (struct mmsghdr){.msg_hdr = {.msg_name = &names[i], .msg_iov = &vectors[i], .msg_iovlen = 1}};
    address_outgoing(&record, &messages[i].msg_hdr, &controls[i]);
  }
  return outcome(env, sendmmsg(fd, messages, (unsigned)count, MSG_DONTWAIT | MSG_NOSIGNAL));
}

NAPI_MODULE_INIT() {
  static const struct {
    const char *name;
    napi_callback function;
  } functions[] = {
      {"socket", js_socket},
      {"close", js_close},
      {"release", js_release},
      {"pollStart", js_poll_start},
      {"pollStop", js_poll_stop},
      {"setsockopt", js_setsockopt},
      {"getsockopt", js_getsockopt},
      {"bind", js_bind},
      {"connect", js_connect},
      {"getsockname", js_getsockname},
      {"send", js_send},
      {"receiveNetlink", js_receive_netlink},
      {"receiveMessages", js_receive_messages},
      {"sendMessages", js_send_messages},
  };
  struct addon *addon = calloc(1, sizeof *addon);
  if (!addon) {
    napi_throw_error(env, "ENOMEM", "out of memory");
    return NULL;
  }
  addon->env = env;
  if (napi_set_instance_data(env, addon, free_addon, NULL) != napi_ok) {
    free(addon);
    napi_throw_error(env, NULL, "napi_set_instance_data failed");
    return NULL;
  }
  if (napi_get_uv_event_loop(env, &addon->loop) != napi_ok ||
      napi_add_async_cleanup_hook(env, environment_ends, addon, NULL) != napi_ok) {
    napi_throw_error(env, NULL, "the event loop cannot be reached");
    return NULL;
  }
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, addon, &function) !=
            napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
      return NULL;
  }
  return exports;
}
