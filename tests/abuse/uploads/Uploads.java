import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * Sends bodies that are refused, and after each one an innocent request by the same client.
 *
 * Arguments: the address, the size of a body, how many, how many at once, "chunked" or "length", the path, and
 * "client" for java.net.http or "connection" for HttpURLConnection.
 */
public class Uploads {
    private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private static int answered, lost, harmed;
    private static String first = "";

    public static void main(String[] given) throws Exception {
        byte[] body = new byte[Integer.parseInt(given[1])];
        boolean chunked = given[4].equals("chunked");
        boolean modern = given[6].equals("client");
        ExecutorService pool = Executors.newFixedThreadPool(Integer.parseInt(given[3]));
        for (int each = Integer.parseInt(given[2]); each > 0; each--) {
            pool.submit(() -> {
                String loss = problem(() -> modern
                    ? byClient(given[0] + given[5], "PUT", body, chunked, 404, "BLOB_UPLOAD_UNKNOWN")
                    : byConnection(given[0] + given[5], "PUT", body, chunked, 404, "BLOB_UPLOAD_UNKNOWN"));
                String harm = problem(() -> modern
                    ? byClient(given[0] + "/v2/", "POST", new byte[0], false, 405, "UNSUPPORTED")
                    : byConnection(given[0] + "/v2/", "POST", new byte[0], false, 405, "UNSUPPORTED"));
                count(loss, harm);
            });
        }
        pool.shutdown();
        pool.awaitTermination(1, TimeUnit.HOURS);
        System.out.printf("{\"answered\":%d,\"lost\":%d,\"harmed\":%d,\"first\":\"%s\"}%n",
            answered, lost, harmed, first.replaceAll("[\"\\\\\\n]", " "));
        System.exit(0);
    }

    private static synchronized void count(String loss, String harm) {
        if (loss == null) {
            answered++;
        } else {
            lost++;
        }
        if (harm != null) {
            harmed++;
        }
        if (first.isEmpty() && (loss != null || harm != null)) {
            first = loss != null ? loss : "innocent: " + harm;
        }
    }

    private static String problem(Callable<String> call) {
        try {
            return call.call();
        } catch (Exception problem) {
            return problem.toString();
        }
    }

    private static String byClient(String where, String method, byte[] body, boolean chunked, int status, String code)
            throws IOException, InterruptedException {
        HttpRequest.BodyPublisher publisher = HttpRequest.BodyPublishers.ofByteArray(body);
        if (chunked) {
            publisher = HttpRequest.BodyPublishers.fromPublisher(publisher);
        }
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://" + where)).method(method, publisher).build();
        HttpResponse<String> answer = CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
        return judged(answer.statusCode(), answer.body(), status, code);
    }

    private static String byConnection(String where, String method, byte[] body, boolean chunked, int status, String code)
            throws IOException {
        HttpURLConnection connection = (HttpURLConnection) URI.create("http://" + where).toURL().openConnection();
        connection.setRequestMethod(method);
        connection.setDoOutput(true);
        if (chunked) {
            connection.setChunkedStreamingMode(65536);
        } else {
            connection.setFixedLengthStreamingMode(body.length);
        }
        try (OutputStream out = connection.getOutputStream()) {
            out.write(body);
        }
        int found = connection.getResponseCode();
        try (InputStream in = connection.getErrorStream()) {
            return judged(found, new String(in.readAllBytes(), StandardCharsets.UTF_8), status, code);
        }
    }

    private static String judged(int found, String text, int status, String code) {
        return found == status && text.contains("\"" + code + "\"") ? null : found + " " + text;
    }
}
