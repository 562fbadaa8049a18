import java.io.OutputStream;
import java.math.BigInteger;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.Date;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.BasicConstraints;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.GeneralNames;
import org.bouncycastle.cert.X509v3CertificateBuilder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cert.jcajce.JcaX509v3CertificateBuilder;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;

/**
 * Fresh certificates for a test: {@code java TestCertificates.java FOLDER PASSWORD HOST}.
 *
 * <p>Out: ca.pem and foreign-ca.pem, two authorities; server.p12, a key whose certificate names HOST only, and
 * trust.p12 for the broker; client.pem and client-key.pem for a client.
 */
public final class TestCertificates {

    private static final Instant NOW = Instant.now();
    private static int serial;

    public static void main(String[] arguments) throws Exception {
        Path folder = Path.of(arguments[0]);
        char[] password = arguments[1].toCharArray();
        KeyPair authorityKey = newKey();
        KeyPair foreignKey = newKey();
        KeyPair serverKey = newKey();
        KeyPair clientKey = newKey();
        X509Certificate authority = certify("authority", authorityKey, "authority", authorityKey, null);
        X509Certificate foreign = certify("foreign", foreignKey, "foreign", foreignKey, null);
        X509Certificate server = certify("server", serverKey, "authority", authorityKey, arguments[2]);
        X509Certificate client = certify("client", clientKey, "authority", authorityKey, "client");

        KeyStore serverStore = newStore();
        serverStore.setKeyEntry(
                "server", serverKey.getPrivate(), password, new Certificate[] {server, authority});
        store(serverStore, folder.resolve("server.p12"), password);
        KeyStore trustStore = newStore();
        trustStore.setCertificateEntry("authority", authority);
        store(trustStore, folder.resolve("trust.p12"), password);
        writePem(folder.resolve("ca.pem"), "CERTIFICATE", authority.getEncoded());
        writePem(folder.resolve("foreign-ca.pem"), "CERTIFICATE", foreign.getEncoded());
        writePem(folder.resolve("client.pem"), "CERTIFICATE", client.getEncoded());
        writePem(folder.resolve("client-key.pem"), "PRIVATE KEY", clientKey.getPrivate().getEncoded());
    }

    /** A certificate for a host, or for an authority where there is none. */
    private static X509Certificate certify(
            String subject, KeyPair key, String issuer, KeyPair issuerKey, String host) throws Exception {
        X509v3CertificateBuilder builder = new JcaX509v3CertificateBuilder(
                new X500Name("CN=" + issuer),
                BigInteger.valueOf(++serial),
                Date.from(NOW.minus(Duration.ofHours(1))),
                Date.from(NOW.plus(Duration.ofDays(1))),
                new X500Name("CN=" + subject),
                key.getPublic());
        builder.addExtension(Extension.basicConstraints, true, new BasicConstraints(host == null));
        if (host != null) {
            GeneralName name = new GeneralName(GeneralName.dNSName, host);
            builder.addExtension(Extension.subjectAlternativeName, false, new GeneralNames(name));
        }
        return new JcaX509CertificateConverter()
                .getCertificate(builder.build(
                        new JcaContentSignerBuilder("SHA256withECDSA").build(issuerKey.getPrivate())));
    }

    private static KeyPair newKey() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(256);
        return generator.generateKeyPair();
    }

    private static KeyStore newStore() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    private static void store(KeyStore store, Path file, char[] password) throws Exception {
        try (OutputStream out = Files.newOutputStream(file)) {
            store.store(out, password);
        }
    }

    private static void writePem(Path file, String kind, byte[] bytes) throws Exception {
        String body = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(bytes);
        Files.writeString(file, "-----BEGIN " + kind + "-----\n" + body + "\n-----END " + kind + "-----\n");
    }
}
