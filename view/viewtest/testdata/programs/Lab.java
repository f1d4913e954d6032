// SPDX-License-Identifier: Apache-2.0
// Lab fetch URL | post URL FILE | udp HOST PORT TEXT | serve PORT FILE
import com.sun.net.httpserver.HttpServer;
import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.channels.DatagramChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.HexFormat;
import java.util.concurrent.Executors;

public class Lab {
	static String sum(byte[] b) throws Exception {
		return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(b)) + "\n";
	}

	public static void main(String[] a) throws Exception {
		HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(20)).build();
		switch (a[0]) {
		case "fetch" -> System.out.print(sum(client.send(HttpRequest.newBuilder(URI.create(a[1])).build(), BodyHandlers.ofByteArray()).body()));
		case "post" -> System.out.print(client.send(HttpRequest.newBuilder(URI.create(a[1]))
				.POST(HttpRequest.BodyPublishers.ofFile(Path.of(a[2]))).build(), BodyHandlers.ofString()).body());
		case "udp" -> {
			try (DatagramSocket s = new DatagramSocket()) {
				s.setSoTimeout(5000);
				s.send(new DatagramPacket(a[3].getBytes(), a[3].length(), InetAddress.getByName(a[1]), Integer.parseInt(a[2])));
				DatagramPacket p = new DatagramPacket(new byte[65536], 65536);
				s.receive(p);
				System.out.println(new String(p.getData(), 0, p.getLength()));
			}
		}
		case "serve" -> serve(Integer.parseInt(a[1]), Path.of(a[2]));
		default -> System.exit(2);
		}
	}

	static void serve(int port, Path big) throws Exception {
		HttpServer web = HttpServer.create(new InetSocketAddress("::", port), 128);
		web.setExecutor(Executors.newFixedThreadPool(8));
		web.createContext("/", x -> {
			try (x) {
				byte[] out;
				if (x.getRequestMethod().equals("POST")) {
					out = sum(x.getRequestBody().readAllBytes()).getBytes();
				} else if (x.getRequestURI().getPath().equals("/big")) {
					x.sendResponseHeaders(200, Files.size(big));
					Files.copy(big, x.getResponseBody());
					return;
				} else {
					out = (x.getRemoteAddress().getAddress().getHostAddress().replaceFirst("%.*", "") + "\n").getBytes();
				}
				x.sendResponseHeaders(200, out.length);
				x.getResponseBody().write(out);
			} catch (Exception e) {
				e.printStackTrace();
			}
		});
		web.start();
		Selector selector = Selector.open();
		DatagramChannel udp = DatagramChannel.open();
		udp.configureBlocking(false);
		udp.bind(new InetSocketAddress("::", port));
		udp.register(selector, SelectionKey.OP_READ);
		ByteBuffer b = ByteBuffer.allocate(65536);
		while (selector.select() >= 0) {
			selector.selectedKeys().clear();
			for (var from = udp.receive(b.clear()); from != null; from = udp.receive(b.clear())) {
				String text = new String(b.array(), 0, b.position()).toUpperCase();
				udp.send(ByteBuffer.wrap(text.getBytes()), from);
			}
		}
	}
}
