/*
 * Sends lines over TLS, or makes handshakes, a process for each connection.
 *
 *     tlsload bulk|lines PORT CONNECTIONS LINES SIZE     each sends so many lines of SIZE bytes: in bulk as many in a
 *                                                        record as fit, or a record for each line
 *     tlsload handshakes PORT CONNECTIONS COUNT SIZE     each makes so many connections, and sends a line on each
 *     tlsload idle PORT CONNECTIONS 0 0                  opens so many, says "open" on its output, and waits for its input
 *                                                        to end
 *
 * The exit status is 1 when a connection failed.
 */

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/ssl.h>

#define RECORD (16 * 1024)

static SSL_CTX *context;
static int port;

static SSL *begin(void)
{
	int one = 1, peer = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(peer, (struct sockaddr *)&address, sizeof address))
		return NULL;
	setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	SSL *ssl = SSL_new(context);
	SSL_set_fd(ssl, peer);
	return SSL_connect(ssl) == 1 ? ssl : NULL;
}

/* Say goodbye, and wait until the server has closed: what was sent has been read then. */
static void end(SSL *ssl)
{
	char rest[256];
	int peer = SSL_get_fd(ssl);
	SSL_shutdown(ssl);
	shutdown(peer, SHUT_WR);
	while (read(peer, rest, sizeof rest) > 0)
		;
	SSL_free(ssl);
	close(peer);
}

static void make_line(char *line, int size, int connection, long number)
{
	int length = snprintf(line, (size_t)size, "<13>connection %d line %ld ", connection, number);
	memset(line + length, '.', (size_t)(size - length - 1));
	line[size - 1] = '\n';
}

static int send_lines(int connection, long lines, int size, int in_bulk)
{
	static char record[RECORD];
	SSL *ssl = begin();
	int filled = 0;
	if (ssl == NULL)
		return 1;
	for (long number = 0; number < lines; number++) {
		make_line(record + filled, size, connection, number);
		filled += size;
		if (!in_bulk || filled + size > RECORD || number + 1 == lines) {
			if (SSL_write(ssl, record, filled) != filled)
				return 1;
			filled = 0;
		}
	}
	end(ssl);
	return 0;
}

static int shake_hands(int connection, long count, int size)
{
	int failed = 0;
	for (long number = 0; number < count; number++) {
		SSL *ssl = begin();
		char line[RECORD];
		make_line(line, size, connection, number);
		if (ssl == NULL || SSL_write(ssl, line, size) != size)
			failed = 1;
		else
			end(ssl);
	}
	return failed;
}

static int stay(int connections)
{
	char rest[16];
	for (int i = 0; i < connections; i++)
		if (begin() == NULL)
			return 1;
	printf("open\n");
	fflush(stdout);
	while (read(0, rest, sizeof rest) > 0)
		;
	return 0;
}

int main(int count, char **words)
{
	if (count != 6) {
		fprintf(stderr, "usage: tlsload bulk|lines|handshakes|idle PORT CONNECTIONS COUNT SIZE\n");
		return 2;
	}
	const char *mode = words[1];
	int connections = atoi(words[3]), size = atoi(words[5]), failed = 0, status;
	long number = atol(words[4]);
	port = atoi(words[2]);
	signal(SIGPIPE, SIG_IGN);
	context = SSL_CTX_new(TLS_client_method());
	if (!strcmp(mode, "idle"))
		return stay(connections);
	for (int i = 0; i < connections; i++) {
		if (fork() == 0)
			exit(!strcmp(mode, "handshakes") ? shake_hands(i, number, size)
							 : send_lines(i, number, size, !strcmp(mode, "bulk")));
	}
	while (wait(&status) > 0)
		failed |= status;
	return failed != 0;
}
